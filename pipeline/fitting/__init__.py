"""Fitting 68 landmarks to a face with edges, darkness and skin colour; no trained network.

    search    where faces are, and their eyes     -> frame
    eyes      contours of the lids                (curves, appearance)
    brows     dark bands above the eyes
    likeness  the whole face against a coarse one
    mouth     outer and inner contours of the lips
    nose      nostrils and base
    jaw       cheeks and chin
    fit       all of it, for the eyes with which the rest agrees best

Every step starts from the average face in `mean_face` and is held near it by a prior, so that
weak evidence leaves the average in place.
"""

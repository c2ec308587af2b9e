"""`avatar-orchestrator models`: the released weights, fetched, checked and listed.

catalogue   what there is, of which licence, and from where, as data
manifest    what was fetched into a folder, and what was answered about licences
hub         one file from the Hugging Face hub or its local cache, verified
download    everything that is missing, after the question about the licence
checking    whether the files in a folder are the right ones
command     arguments to the three sub-commands
"""

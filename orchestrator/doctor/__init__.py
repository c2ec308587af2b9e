"""`avatar-orchestrator doctor`: all that somebody who helps from afar would ask for, in one report.

A section each for software, machine, GPU, configuration, files, ports, state directory, service,
the running daemon, connections and speed. Each is looked at in a thread of its own for a bounded
time and fails alone. Whatever is found goes through `redaction` before it is shown.
"""

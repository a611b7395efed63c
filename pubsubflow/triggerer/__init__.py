"""The triggerer: runs triggers, for which tasks wait or which watch datasets.

`service` is the daemon's side; `host` is the child process in which triggers run. Both know the
`protocol` between them and the runner's `flight_recorder`, and neither imports the other.
"""

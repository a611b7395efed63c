"""The trigger host process: runs triggers on event loops, apart from the daemon."""

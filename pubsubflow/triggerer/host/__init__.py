"""The trigger host: the child process that runs triggers on event loops."""

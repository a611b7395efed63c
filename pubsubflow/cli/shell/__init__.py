"""Completion and help of commands, which only a shell or a reader of help needs."""

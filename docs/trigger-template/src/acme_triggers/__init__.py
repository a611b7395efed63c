"""What Acme's tasks wait for."""

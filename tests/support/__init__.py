"""Test support: the harness, the DSL for DAG specs, servers, signers and other doubles."""

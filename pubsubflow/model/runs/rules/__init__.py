"""Rules by which tasks start or never do: trigger rules, setups, branches."""

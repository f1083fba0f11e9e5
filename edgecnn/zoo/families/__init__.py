"""The architectures: for each family a module with ``build(spec)``, and a TOML file with its rows."""

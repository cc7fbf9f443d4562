"""Asks a database of known vulnerabilities (OSV) about every dependency that a lock file pins."""

"""The record of every thought: SQLite, one writer, migrations, search."""

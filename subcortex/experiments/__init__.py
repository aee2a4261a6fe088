"""Questions the machine answers about itself (a later issue; see docs/design/roadmap.md)."""

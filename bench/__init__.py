"""What the server costs, measured: ``make bench`` runs everything and writes docs/performance.md."""

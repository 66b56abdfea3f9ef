"""What /api/export promises: formats, conditions, receipts, lengths and codings, with the clients that read them."""

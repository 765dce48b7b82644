"""Data at scale: addresses, corpora, shards, OCR judges, filters."""

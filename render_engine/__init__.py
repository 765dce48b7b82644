"""Pure drawing: a `PageSpec` in, a `RenderedPage` out. No torch, no Ray, no Parquet."""

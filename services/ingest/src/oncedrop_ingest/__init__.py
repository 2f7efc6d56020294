"""oncedrop ingest: uploads in, links out."""

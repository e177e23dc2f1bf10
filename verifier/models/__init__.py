"""From specifications to live models, and copies of them to work on."""

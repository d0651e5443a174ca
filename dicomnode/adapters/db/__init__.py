"""The node's business state in a database: `migration` makes its tables, `repositories` opens it."""

"""A small shop: `orders` takes orders, `ledger` keeps the books of each tenant."""

"""Who a message belongs to: the signed context on the wire and the context inside a handler."""

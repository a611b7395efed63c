"""Effects that follow a commit: task orders, change records, published messages, spans."""

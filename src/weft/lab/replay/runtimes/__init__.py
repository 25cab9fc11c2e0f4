"""One runtime a file, as data; `shared` is what several have. The list: `replay.table`."""

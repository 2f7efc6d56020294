"""oncedrop beside nginx, on one machine, in one run: `make bench`.

- run: which parts, how many rounds; prints tables, writes results and plots
- parts: one module a part: what is compared, and how
- comparing: rounds (A B A B)
- transfers: one round of moving a large file
- servers: server processes: started, watched (CPU, peak memory), ended
- nginx, stack, usual: the contenders: nginx, oncedrop, what a Starlette program usually does
- load, drain: the clients
- seeding: drops in bulk, by way of the product's own volume and scripts
- results, tables: from numbers to what is printed
"""

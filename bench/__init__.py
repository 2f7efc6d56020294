"""oncedrop beside nginx, on one machine, in one run: `make bench`.

- run: which parts, how many rounds; prints tables, writes results and plots
- parts: one module a part: what is compared, and how
- comparing: rounds (A B A B)
- transfers: one round of moving a large file
- servers: server processes: started, watched (CPU, peak memory), ended
- nginx, stack, usual: the contenders: nginx, oncedrop, what a Starlette program usually does
- bare: oncedrop without hash or fsync, to see what they cost
- load, drain: the clients
- probe, probing: small requests at a steady pace beside something else
- memory, machine, tools, ports, metrics: what the rest needs to know or do
- seeding: drops in bulk, by way of the product's own volume and scripts
- results, floors, tables, plots: from numbers to what is shown
- document: puts a run into docs/
"""

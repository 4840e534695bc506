"""Clients computed on other machines, by TFF's own workers.

Workers compute only the clients' TensorFlow functions. Everything else runs in
this process, as in `in_process`. So results do not depend on the assignment of
clients to workers.

  contexts      what users set: `set_remote_context`
  client_pool   which client runs on which worker; workers that are lost
  connection    the requests to one worker, and whether it is alive

`execution.functions` chooses the functions that are sent, and
`execution.parcels` makes messages of values, for `ray` as well.
"""

"""Clients computed on other machines, by TFF's own workers.

Everything but the clients' TensorFlow runs in this process, as in
`in_process`: results do not depend on which worker computed which client.

  contexts      what users set: `set_remote_context`
  client_pool   which client runs on which worker; workers that are lost
  connection    the requests to one worker, and whether it is alive
  functions     which functions of clients are sent
  parcels       values as messages: what is sent once, what in parts
"""

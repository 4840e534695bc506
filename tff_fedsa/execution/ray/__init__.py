"""Clients computed by actors of a Ray cluster, on CPUs and GPUs.

Actors compute the clients' functions as the in-process runtime does. Everything
else runs in this process, in the order of the clients. So results do not depend
on the assignment of clients to actors.

  contexts      what users set: `set_ray_context`
  cluster       the connection to a cluster: address, encryption, versions
  client_pool   which client runs where, and what happens if an actor is lost
  scheduling    the order and the place of the clients
  fleet         the actors: started, watched, lost
  worker        the actor
  calls         one client's function with its argument, and how to repeat it
  kept          results that stay where they were computed
  messages      values as arrays and bytes
  sent_values   what was sent stays: functions and data
  certificates  a set of certificates for TLS

Only these modules import the package `ray`, and only when a context is made.
"""

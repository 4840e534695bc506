"""FedSA in TFF's own pipelines: its training loop, programs, client data.

Each module connects one tool of TFF with stateful clients:

  population             clients by id: examples, and states in a store
  training_process       what `tff.simulation.run_training_process` drives
  checkpoint_state       program state on disk, for large client states
  dataset_computations   clients passed as ids, data sets built where they are
  federated_context      a `tff.program` context that takes client results
  client_ids             a data source whose draws follow from a seed
  program                `train_model`, program logic for stateful clients
  evaluation_process     what `tff.learning.programs.EvaluationManager` drives
  release_managers       rows of evaluations, which finish in any order
  client_tasks           a `BaselineTask` for FedSA and its neighbours
"""

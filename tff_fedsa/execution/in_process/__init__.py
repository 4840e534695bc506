"""TFF's execution contexts with an executor in this process.

Values are tensors of this process. TensorFlow runs on its devices, GPUs
included. A bounded pool of threads computes clients in parallel. From the
outside in:

  contexts      what users set: `set_in_process_context`
  executor      TFF's `Executor` interface
  values        Python values -> tensors, strictly, and back
  interpreter building blocks -> Python closures intrinsics what `federated_map`
  and so on do client_pool which client runs where and when; cancellation
  tensorflow_functions a TensorFlow computation as a callable; their cache
  control_flow what stays functional while TFF compiles graph_imports,
  graph_rewriting, dataset_loops a TFF graph, made to run here operation_errors
  what users catch if an operation fails eager_tensors, function_removals a leak
  and a crash of TensorFlow's, mended
"""

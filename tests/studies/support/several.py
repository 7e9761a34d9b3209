"""Studies of several tasks: with one metric, and with two."""

STUDY = """\
question: Which?
adapter: {method: lora}
tasks:
  - sarcasm
  - {name: vitaminc, set: {task.max_length: 96, train.epochs: 3}}
  - {name: short, set: {task.name: movie_sentences, task.train_rows: 100}}
arms: [{name: lora}, {name: low, set: {adapter.r: 2}}, {name: high, set: {adapter.r: 16}}]
baseline: lora
objective: {metric: test/accuracy, select_on: valid/accuracy}
"""
MIXED = """\
question: Which?
adapter: {method: lora}
tasks:
  - glue_rte
  - {name: glue_cola, metric: test/matthews, select_on: valid/matthews}
arms: [{name: lora}, {name: low, set: {adapter.r: 2}}]
baseline: lora
objective: {metric: test/accuracy, select_on: valid/accuracy, mixed: true}
"""

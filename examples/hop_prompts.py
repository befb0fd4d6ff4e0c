"""A user's neighbourhood, hop by hop, and the prompt that describes it to a language model.

What calls what:

    examples/hop_prompts.py
      dglrec.graphs.user_item(split.train)      users and their items, in training alone
      dglrec.lm.hop_prompts.history_of          a test query: the history, and the time of its target
      dglrec.lm.hop_prompts.around_users        other users of these items before that time, and their other items
        dglrec.graphs.hops                      all trees at once (dglrec/graphs/hops.py)
      dglrec.lm.prompts.Prompter                token numbers under a budget

Commands:

    python examples/hop_prompts.py                                a sample, offline
    python examples/hop_prompts.py --data amazon-beauty --query 5 --budget 60

Where to look next: examples/galrec.py trains a language model on such prompts.
"""

import argparse

import numpy as np

import dglrec
from dglrec.data.flat import packed
from dglrec.lm.hop_prompts import around_users, history_of
from dglrec.lm.prompts import Prompter, texts

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--data", default="sample", help="a data set (see dglrec data list) or a file")
parser.add_argument("--query", type=int, default=0, help="number of the test query")
parser.add_argument("--hops", type=int, default=2, choices=[1, 2, 3])
parser.add_argument("--fanout", type=int, default=8, help="neighbours of each neighbour")
parser.add_argument("--budget", type=int, default=256, help="maximum number of tokens in the prompt")
args = parser.parse_args()

# The neighbourhood ----------------------------------------------------------------------------------------------------

log = dglrec.sample("hops", users=200, items=300) if args.data == "sample" else dglrec.load(args.data, k_core=5)
split = dglrec.leave_one_out(log)
graph = dglrec.graphs.Neighbours(dglrec.graphs.user_item(split.train))
asked = history_of(split.test[args.query : args.query + 1], max_length=20)
found = around_users(graph, asked, [args.fanout] * (args.hops - 1), before=asked.time, order="recent")

print(f"user {log.user_ids[asked.user[0]]}")
for number, hop in enumerate(found, 1):
    ids = (log.item_ids if number % 2 else log.user_ids)[hop.nodes]
    print(f"hop {number}: {len(ids)} {'items' if number % 2 else 'users'}, newest first: {', '.join(ids[:8])} ...")

# The prompt -----------------------------------------------------------------------------------------------------------
# One token per word here; a model has a tokenizer of its own, and always one token per user and item.

words = list(dict.fromkeys(" ".join(texts()).split()))
spoken = np.array([*words, "</s>", *log.user_ids.tolist(), *log.item_ids.tolist()], dtype=object)
users, items = len(words) + 1, len(words) + 1 + log.num_users
make = Prompter(
    lambda text: [words.index(word) for word in text.split()],
    packed([[users + user] for user in range(log.num_users)]),
    packed([[items + item] for item in range(log.num_items)]),
    budget=args.budget,
    end=len(words),
)
prompt = make("user", asked.user, found, question=True)
print(f"\n{' '.join(spoken[prompt.of(0)])}")
cut = ", ".join(f"{count} of hop {number}" for number, count in enumerate(prompt.cut[0].tolist(), 1))
print(f"\n{prompt.lengths[0]} tokens of at most {args.budget}; cut: {cut}")

"""The causal transformer: its density against enumeration, its memory against none."""

import itertools

import numpy as np
import pytest
import torch
from pyro import poutine

from ppl_gen.neural.transformer import Memory, Transformer, rotated, truncated

#: float32's rounding, through a few layers and sums of a few dozen terms.
FLOAT32 = {"rtol": 1e-5, "atol": 1e-5}


def network(n_symbols=3, context_length=8, *, scale=8.0, seed=0, **settings):
    """A network whose distributions are far from uniform: the first weights are small."""
    settings = {"n_layers": 2, "n_heads": 2, "width": 16, "dropout": 0.0} | settings
    torch.manual_seed(seed)
    made = Transformer(n_symbols, context_length, **settings).double().eval()
    with torch.no_grad():
        for weight in made.parameters():
            if weight.ndim == 2:
                weight *= scale
    return made


def row(end, tokens, width, *, ended=True):
    """A sequence as a row: the boundary, its tokens, its end, and what comes after."""
    stretch = [~end, *tokens] + ([end] if ended else [])
    return stretch + [~end] * (width - len(stretch))


def random_rows(made, n, seed=1):
    rng = np.random.default_rng(seed)
    width = made.context_length + 1
    return torch.tensor(
        [
            row(made.n_symbols, rng.integers(made.n_symbols, size=length), width)
            for length in rng.integers(made.context_length, size=n)
        ]
    )


# -- the density ------------------------------------------------------------------------------


@pytest.mark.parametrize("context_length", [2, 3, 8])
@pytest.mark.parametrize("n_symbols", [1, 2])
def test_sums_to_one_over_sequences_of_all_lengths(n_symbols, context_length):
    """Up to a length by enumeration; P(longer) is what all beginnings of it have together.

    With contexts shorter than the sequences, so that windows are crossed.
    """
    made, longest, end = network(n_symbols, context_length), 6, n_symbols
    shorter = [
        row(end, tokens, longest + 2)
        for length in range(longest + 1)
        for tokens in itertools.product(range(n_symbols), repeat=length)
    ]
    longer = [
        row(end, tokens, longest + 2, ended=False)
        for tokens in itertools.product(range(n_symbols), repeat=longest + 1)
    ]
    ended = made.log_prob(torch.tensor(shorter)).exp().sum()
    going = made.log_prob(torch.tensor(longer)).exp().sum()
    torch.testing.assert_close(ended + going, torch.ones((), dtype=torch.float64))
    # Once enough lengths are counted, little is left: the sum converges to one.
    assert going < 0.9


def test_windows_score_what_was_seen_from_their_beginning():
    """Of a long sequence, each token has the conditional of its own window, and no other."""
    made, rng = network(3, 6), np.random.default_rng(0)
    tokens = torch.tensor([[3, *rng.integers(3, size=20), 3]])
    expected = 0.0
    for place in range(1, tokens.shape[1]):
        start = made.window_start(place)
        assert place - start <= 6
        assert start == 0 or place - start > 3
        logits = made(tokens[:, start:place])[0, -1]
        expected = expected + logits.log_softmax(0)[tokens[0, place]]
    tokens[0, 0] = ~3
    torch.testing.assert_close(made.log_prob(tokens)[0], expected)


def test_nothing_leaks_from_the_future():
    """The gradient of what is said after token t, by the embeddings of later ones, is zero."""
    made = network(4, 8)
    tokens = torch.tensor([[4, 0, 3, 1, 2, 0, 1, 3]])
    vectors = made.embedding(tokens).detach().requires_grad_()
    made.embedding.register_forward_hook(lambda *_: vectors)
    logits = made(tokens)
    for place in range(8):
        (gradient,) = torch.autograd.grad(logits[0, place].sum(), vectors, retain_graph=True)
        reached = gradient[0].abs().sum(1) > 0.0
        assert reached.tolist() == [True] * (place + 1) + [False] * (7 - place)


def test_attention_knows_distances_and_nothing_else_of_places():
    made = network(3, 12)
    query, key = torch.randn(2, 8, dtype=torch.float64)
    turned = [rotated(x.expand(12, 8), made.cos, made.sin) for x in (query, key)]
    scores = turned[0] @ turned[1].T
    for distance in range(12):
        along = scores.diagonal(-distance)
        torch.testing.assert_close(along, along[:1].expand_as(along))
    assert scores[:, 0].unique().numel() == 12
    # So one layer tells the order of what came before.
    single = network(3, 12, n_layers=1)
    first, second = single(torch.tensor([[3, 0, 1, 2], [3, 1, 0, 2]]))[:, -1]
    assert not torch.allclose(first, second)


def test_padding_and_other_rows_change_nothing():
    made = network(3, 12)
    rows = random_rows(made, 9)
    together = made.log_prob(rows)
    for i, stretch in enumerate(rows):
        length = int((stretch != ~3).nonzero().max()) + 1
        alone = made.log_prob(stretch[None, :length])
        torch.testing.assert_close(alone[0], together[i])


def test_what_is_given_is_not_scored():
    """p(x) = p(beginning) p(rest | beginning)."""
    made = network(3, 8)
    whole = torch.tensor([row(3, [0, 2, 1, 1], 9)])
    beginning = torch.tensor([row(3, [0, 2], 9, ended=False)])
    rest = torch.tensor([[~3, ~0, ~2, 1, 1, 3, ~3, ~3, ~3]])
    torch.testing.assert_close(made.log_prob(whole), made.log_prob(beginning) + made.log_prob(rest))


def test_covariates_change_the_density_of_their_rows_alone():
    made = network(3, 8, context_width=2)
    rows = random_rows(made, 4)
    context = torch.randn(4, 2, dtype=torch.float64)
    alone = torch.cat([made.log_prob(rows[[i]], context[[i]]) for i in range(4)])
    torch.testing.assert_close(made.log_prob(rows, context), alone)
    assert not torch.allclose(made.log_prob(rows, context), made.log_prob(rows, -context))


# -- drawing ----------------------------------------------------------------------------------


def test_with_its_memory_and_without_the_logits_are_the_same():
    made = network(5, 16).float()
    tokens = torch.randint(5, (3, 16))
    at_once = made(tokens)
    memory = Memory.of(made, 3)
    first = made(tokens[:, :4], memory=memory)
    later = [made(tokens[:, [t]], memory=memory) for t in range(4, 16)]
    torch.testing.assert_close(torch.cat([first, *later], dim=1), at_once, **FLOAT32)


def test_draws_come_from_the_density_that_scores():
    """Each conditional that is drawn from, windows crossed, is that of `log_prob`."""
    made, steps = network(3, 4), 11
    begun = torch.tensor([[3, 1], [3, 0]])
    seen = []
    original = torch.multinomial

    def noting(probabilities, count):
        seen.append(probabilities)
        return original(probabilities, count)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "multinomial", noting)
        codes = made.generate(begun, steps, may_end=False)
    for place, drawn_from in enumerate(seen, start=2):
        for i in range(2):
            ways = torch.stack([torch.cat([codes[i, :place], torch.tensor([k])]) for k in range(3)])
            ways[:, 0] = ~ways[:, 0]
            expected = made.log_prob(ways).softmax(0)
            torch.testing.assert_close(drawn_from[i, :3], expected)
            assert drawn_from[i, 3] == 0.0


def test_frequencies_of_draws_are_their_probabilities():
    made, n = network(2, 4), 4000
    torch.manual_seed(0)
    drawn = made.sample(n)
    assert drawn.shape == (n, 5)
    ways, counts = drawn.unique(dim=0, return_counts=True)
    expected = made.log_prob(ways).exp()
    # Every way that is drawn has its share, within five standard errors.
    error = (expected * (1 - expected) / n).sqrt()
    assert ((counts / n - expected).abs() < 5 * error + 1 / n).all()
    assert expected.sum() > 0.97


def test_sequences_that_have_ended_stay_so_and_the_others_go_on():
    made, n = network(2, 8, scale=3.0), 64
    torch.manual_seed(0)
    codes = made.generate(torch.full((n, 1), 2), 30)
    ended = (codes[:, 1:] == 2).long()
    assert (ended.diff(dim=1) >= 0).all()
    lengths = (1 - ended).sum(1)
    assert lengths.min() < 4
    assert lengths.max() > 8


def test_one_seed_gives_the_same_draws():
    made = network(4, 8)
    draws = []
    for _ in range(2):
        torch.manual_seed(7)
        draws.append(made.generate(torch.full((5, 1), 4), 12, top_k=3, temperature=0.8))
    assert torch.equal(*draws)


@pytest.mark.parametrize("top_k", [None, 1, 2, 5, 9])
@pytest.mark.parametrize("top_p", [None, 1e-9, 0.3, 0.7, 1.0])
def test_truncation_against_brute_force(top_k, top_p):
    torch.manual_seed(0)
    logits = 2.0 * torch.randn(20, 5, dtype=torch.float64)
    found = truncated(logits, top_k, top_p).softmax(1)
    for line, kept in zip(logits.softmax(1).tolist(), found, strict=True):
        chosen = sorted(range(5), key=lambda k: -line[k])[:top_k]
        total = sum(line[k] for k in chosen)
        if top_p is not None:
            sizes = range(1, len(chosen) + 1)
            enough = [s for s in sizes if sum(line[k] for k in chosen[:s]) >= top_p * total - 1e-12]
            chosen = chosen[: enough[0]]
        total = sum(line[k] for k in chosen)
        expected = [line[k] / total if k in chosen else 0.0 for k in range(5)]
        np.testing.assert_allclose(kept, expected, rtol=1e-12)


# -- as a module ------------------------------------------------------------------------------


def test_a_step_of_training_on_the_meta_device():
    made = Transformer(5, 8, n_layers=1, n_heads=2, width=8, context_width=2).to("meta")
    rows = torch.zeros((3, 9), dtype=torch.long, device="meta")
    optimizer = torch.optim.Adam(made.parameters())
    loss = -made.log_prob(rows, torch.zeros((3, 2), device="meta")).mean()
    loss.backward()
    optimizer.step()
    assert loss.device.type == "meta"
    long = torch.zeros((3, 40), dtype=torch.long, device="meta")
    assert made.log_prob(long, torch.zeros((3, 2), device="meta")).shape == (3,)


def test_as_a_pyro_program():
    made = network(3, 6)
    rows = random_rows(made, 4)
    trace = poutine.trace(made.model).get_trace(rows)
    trace.compute_log_prob()
    torch.testing.assert_close(trace.nodes["x"]["log_prob"], made.log_prob(rows))
    drawn = poutine.trace(made.model).get_trace(n=5).nodes["x"]["value"]
    assert drawn.shape == (5, 7)
    assert made.support.check(drawn).all()


def test_an_order_one_source_is_learned_to_its_entropy():
    """Bits of a chain's sequences, ends included, against the exact ones."""
    rng = np.random.default_rng(0)
    after = np.array([[0.7, 0.1, 0.1, 0.1], [0.1, 0.1, 0.7, 0.1], [0.3, 0.3, 0.2, 0.2]])  # 3: end
    first = np.array([0.5, 0.3, 0.2])

    def draw(n):
        rows = []
        for _ in range(n):
            tokens = [int(rng.choice(3, p=first))]
            while len(tokens) < 15 and (new := int(rng.choice(4, p=after[tokens[-1]]))) != 3:
                tokens.append(new)
            rows.append(row(3, tokens, 17, ended=len(tokens) < 15))
        return torch.tensor(rows)

    def exact(rows):
        total = 0.0
        for stretch in rows.tolist():
            tokens = [code for code in stretch if code >= 0]
            total += np.log(first[tokens[0]])
            total += sum(np.log(after[a, b]) for a, b in itertools.pairwise(tokens))
        return total / sum(int((stretch >= 0).sum()) for stretch in rows)

    train, test = draw(1500), draw(300)
    torch.manual_seed(0)
    made = Transformer(3, 16, n_layers=1, n_heads=2, width=16, dropout=0.0)
    optimizer = torch.optim.Adam(made.parameters(), lr=1e-2)
    for _ in range(5):
        for batch in train[torch.randperm(len(train))].split(50):
            optimizer.zero_grad()
            (-made.log_prob(batch).mean()).backward()
            optimizer.step()
    with torch.no_grad():
        per_token = float(made.log_prob(test).sum() / (test >= 0).sum())
    # Of about 8,000 tokens some 1,000 weights are learned: about 0.01 nats over the source's own.
    assert exact(test) - 0.03 < per_token <= exact(test) + 0.005

"""Densities of images: by enumeration of all of them, by gradients, and by uncached drawing."""

import math

import pytest
import torch
from pixel_networks import network_of, seen_by_pixels
from scipy.stats import chisquare
from torch.distributions import Categorical

from ppl_gen.neural.pixels import PixelCNN
from ppl_gen.neural.row_lstm import PixelRNN

NETWORKS = [PixelCNN, PixelRNN]


def all_images(width, n_levels):
    levels = torch.arange(float(n_levels), dtype=torch.float64)
    return torch.cartesian_prod(*[levels] * width)


def context_of(n, width):
    return torch.randn(1, width, dtype=torch.float64).expand(n, -1) if width else None


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize(
    ("shape", "n_levels", "settings"),
    [
        ((3, 3, 1), 2, {}),
        ((3, 3, 1), 2, {"context_width": 3}),
        ((2, 2, 1), 3, {}),
        ((1, 1, 3), 5, {}),
        ((2, 1, 3), 2, {"n_filters": 7}),
        ((2, 2, 1), 5, {"n_logistics": 2}),
        ((1, 5, 1), 3, {"kernel_size": 1}),
    ],
)
def test_masses_of_all_images_sum_to_one(kind, shape, n_levels, settings):
    network = network_of(kind, shape, n_levels, **settings)
    images = all_images(math.prod(shape), n_levels)
    density = network.log_prob(images, context_of(len(images), network.context_width))
    assert density.std() > 0.1  # not merely uniform
    assert density.exp().sum().item() == pytest.approx(1.0, abs=1e-10)


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("shape", [(4, 4, 1), (3, 2, 3)])
def test_an_entry_sees_all_before_it_and_none_after(kind, shape):
    # Wide enough kernels: of the row LSTM, 2 W - 1 columns; enough filters that no group is dead.
    kernel_size = 7 if kind is PixelRNN else 3
    network = network_of(kind, shape, 3, n_filters=18, kernel_size=kernel_size, n_layers=4)
    expected = torch.ones(network.width, network.width).tril(-1).bool()
    assert torch.equal(seen_by_pixels(network), expected)


@pytest.mark.parametrize("reach", [1, 2])
def test_a_shallow_network_sees_as_far_as_it_says(reach):
    network = network_of(PixelCNN, (7, 7, 1), 2, kernel_size=3, n_layers=reach)
    seen = seen_by_pixels(network).reshape(49, 7, 7)[7 * 4 + 3]
    rows, columns = torch.meshgrid(torch.arange(7), torch.arange(7), indexing="ij")
    near = ((rows - 4).abs() <= reach + 1) & ((columns - 3).abs() <= reach)
    before = (rows < 4) | ((rows == 4) & (columns < 3))
    assert torch.equal(seen, near & before)


def test_a_pixel_is_told_its_place():
    # Farther from the border than the network sees: padding cannot tell it.
    network = network_of(PixelCNN, (14, 12, 1), 3, kernel_size=3, n_layers=2)
    blank = network.embed(torch.zeros(1, 14, 12, 1))
    found = network.features(blank, None)[0, :, 4:, 3:-3].flatten(1).mT
    apart = torch.cdist(found, found) + torch.eye(len(found))
    assert apart.min() > 1e-4  # no two places alike
    with torch.no_grad():
        for layer in network.layers:
            layer.place.weight.zero_()
    found = network.features(blank, None)[0, :, 4:, 3:-3].flatten(1).mT
    torch.testing.assert_close(found, found[:1].expand_as(found))


def test_images_alike_but_for_their_place_are_learned():
    # A bright pixel in the middle of a blank image: what it sees is what 38 others see.
    torch.manual_seed(0)
    images = torch.zeros(1, 11, 11)
    images[0, 5, 6] = 1.0
    network = PixelCNN((11, 11, 1), 2, n_filters=8, n_layers=2, kernel_size=3)
    descent = torch.optim.Adam(network.parameters(), 0.03)
    for _ in range(60):
        descent.zero_grad()
        loss = -network.log_prob(images.flatten(1)).mean()
        loss.backward()
        descent.step()
    # One that is the same at these 39 places can do no better than 39 H(1/39) = 4.6 nats.
    assert loss < 0.5


def test_weights_without_places_are_refused():
    network = network_of(PixelCNN, (3, 3, 1), 2)
    weights = {name: w for name, w in network.state_dict().items() if "place" not in name}
    with pytest.raises(RuntimeError, match=r"Missing key.*layers\.0\.place"):
        network.load_state_dict(weights)


@pytest.mark.parametrize("kind", NETWORKS)
def test_levels_in_order_start_alike_where_they_are_near(kind):
    categories, ordered = (
        torch.cdist(levels, levels)[0]
        for n in (None, 2)
        for levels in kind((2, 2, 1), 17, n_filters=32, n_logistics=n).levels.detach()
    )
    torch.testing.assert_close(categories[1:], categories[1].expand(16))
    assert (ordered.diff() > 0.0).all()


def draw_uncached(network, values, known, context):
    """The plain sampler: the whole network once for every entry."""
    values = values.clone()
    for place in range(network.width):
        if known[:, place].all():
            continue
        embedded = network.embed(values.view(-1, *network.image_shape))
        told = network.distribution(network.features(embedded, context))
        logits = told.logits.flatten(1, -2)[:, place]
        drawn = Categorical(logits=logits).sample().to(values)
        values[:, place] = torch.where(known[:, place], values[:, place], drawn)
    return values


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("shape", [(5, 4, 1), (3, 4, 3), (1, 6, 2)])
@pytest.mark.parametrize("share_known", [0.0, 0.7])
def test_the_cache_changes_nothing(kind, shape, share_known):
    network = network_of(kind, shape, 4, context_width=2)
    context = torch.randn(12, 2, dtype=torch.float64)
    x = torch.randint(4, (12, network.width)).double()
    known = torch.rand(12, network.width) < share_known
    if share_known:
        known[:, network.width // 3 : network.width // 2] = True  # whole pixels are passed over
    torch.manual_seed(3)
    with torch.no_grad():
        expected = draw_uncached(network, torch.where(known, x, 0.0), known, context)
    torch.manual_seed(3)
    drawn = network.complete(x.masked_fill(~known, torch.nan), context, n_particles=1).draw()
    assert torch.equal(drawn, expected)
    assert torch.equal(drawn[known], x[known])


@pytest.mark.parametrize("kind", NETWORKS)
def test_draws_have_the_masses(kind):
    network = network_of(kind, (2, 3, 1), 2, scale=2.0)
    torch.manual_seed(5)
    drawn = network.sample(20_000)
    code = (drawn * 2 ** torch.arange(5, -1, -1)).sum(1).long()
    counts = torch.bincount(code, minlength=64).numpy()
    with torch.no_grad():
        masses = network.log_prob(all_images(6, 2)).exp().numpy()
    assert chisquare(counts, masses / masses.sum() * counts.sum()).pvalue > 1e-3


@pytest.mark.parametrize("kind", NETWORKS)
def test_pixels_known_below_weigh_on_missing_ones_above(kind):
    network = network_of(kind, (2, 2, 1), 2, scale=3.0)
    known = torch.tensor([False, True, False, True]).expand(1500, 4)
    x = torch.tensor([0.0, 1.0, 0.0, 1.0], dtype=torch.float64).expand(1500, 4)
    torch.manual_seed(6)
    drawn = network.complete(x.masked_fill(~known, torch.nan), n_particles=30).draw()
    assert torch.equal(drawn[known], x[known])
    images = all_images(4, 2)
    fitting = images[(images[:, 1] == 1.0) & (images[:, 3] == 1.0)]
    with torch.no_grad():
        masses = network.log_prob(fitting).softmax(0)
    frequencies = torch.stack([(drawn == image).all(1).double().mean() for image in fitting])
    # Four standard errors, and the bias of 30 particles.
    assert (frequencies - masses).abs().max() < 4.0 * 0.5 / 1500**0.5 + 0.01


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_step_on_the_meta_device(kind):
    network = kind((4, 4, 3), 4, n_filters=6, n_layers=2, context_width=2).to("meta")
    x, context = torch.empty(5, 48, device="meta"), torch.empty(5, 2, device="meta")
    loss = -network.log_prob(x, context).mean()
    loss.backward()
    assert loss.device.type == "meta"
    assert all(weight.grad is not None for weight in network.parameters())


@pytest.mark.parametrize("kind", NETWORKS)
def test_every_weight_is_trained(kind):
    network = network_of(kind, (3, 3, 1), 2, context_width=2)
    x = torch.randint(2, (16, 9)).double()
    (-network.log_prob(x, torch.randn(16, 2).double()).mean()).backward()
    assert all(weight.grad.abs().sum() > 0.0 for weight in network.parameters())


def test_fewer_filters_than_channels_are_refused():
    with pytest.raises(ValueError, match="n_filters is 2; expected at least one for each of the 3"):
        PixelCNN((2, 2, 3), 4, n_filters=2)

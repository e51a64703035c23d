import pytest
import torch

from geolink.models.positions import as_points, embed_grid, embed_points

CPU = torch.device("cpu")


def table(grid, grid_size=14):
    return embed_grid(grid, 32, grid_size=grid_size, device=CPU)


def test_the_first_half_of_the_channels_is_x():
    left, right, below = embed_points(torch.tensor([[1.0, 2.0], [3.0, 2.0], [1.0, 5.0]]), 32)
    assert torch.equal(left[16:], right[16:])
    assert torch.equal(left[:16], below[:16])
    assert not torch.equal(left[:16], right[:16])


def test_sines_then_cosines():
    embedding = embed_points(torch.tensor([0.5, 0.0]), 32)
    angles = 0.5 * 10_000 ** -(torch.arange(8) / 8)
    torch.testing.assert_close(embedding[:8], angles.sin())
    torch.testing.assert_close(embedding[8:16], angles.cos())


def test_patches_come_row_by_row_after_the_class_token():
    positions = table((14, 14))
    assert positions.shape == (197, 32)
    assert not positions[0].any()
    torch.testing.assert_close(
        positions[1 + 14 * 3 + 5], embed_points(torch.tensor([5.0, 3.0]), 32)
    )


def test_a_larger_image_spreads_over_the_same_positions():
    fine = table((28, 28))[1:].view(28, 28, 32)
    expected = embed_points(torch.tensor([4.75, 9.25]), 32)  # centre of patch 10, 19 of 28
    torch.testing.assert_close(fine[19, 10], expected)


def test_tables_made_in_inference_mode_can_be_trained_with():
    embed_grid.cache_clear()
    with torch.inference_mode():
        table((3, 5))
    weight = torch.ones(32, requires_grad=True)
    (table((3, 5)) * weight).sum().backward()
    assert weight.grad is not None


@pytest.mark.parametrize("count", [0, 3])
def test_points_of_keypoints(count):
    assert as_points(torch.arange(count * 6).view(count, 6)).shape == (count, 3, 2)

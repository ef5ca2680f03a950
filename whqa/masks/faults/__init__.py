"""What each kind of fault does to a mask; `whqa.masks.corruption` draws and replays them."""

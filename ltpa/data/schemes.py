"""Names of the schemes that `ltpa.data.normalise` implements, free of torch: recipes are checked by them."""

SCHEMES = ("none", "meanstd", "imagenet", "yuv-lcn", "gcn-zca")

"""The rows of the catalogue about the network and what it is shown."""

from __future__ import annotations

from dialin.specification.catalogue.knob import DATASET, Knob, Start, always
from dialin.specification.domains import ALWAYS, Condition, FloatRange, IntRange

PLAIN: Condition = {"model": ("small_cnn",)}
OURS: Condition = {"model": ("small_cnn", "resnet18")}

ARCHITECTURE = (
    Knob(
        "model",
        "architecture",
        "choice",
        "the network: a few convolutions (shaped by the knobs of this group), ResNet-18 in its CIFAR form (3x3 stem, "
        "no max pool), or torchvision's MobileNetV3-Small or GoogLeNet with a stem for small images",
        "He et al. 2016, section 4.2; Howard et al. 2019; Szegedy et al. 2015",
        always("small_cnn"),
        Start(
            "He et al. 2016: ResNet-18 is the usual first baseline; the default is small so that a trial is short",
            always("resnet18"),
            then=("googlenet", "mobilenet_v3_small"),
        ),
        choices=("small_cnn", "resnet18", "mobilenet_v3_small", "googlenet"),
    ),
    Knob(
        "width",
        "architecture",
        "int",
        "channels of the first stage; later stages double them",
        "Zagoruyko and Komodakis 2016, Wide residual networks",
        (({"model": ("resnet18",)}, 64), (ALWAYS, 16)),
        Start(
            "the first layer of the MNIST examples of PyTorch and Keras has 32 channels, He et al. 2016 (section "
            "3.4) has 64; the default of small_cnn is half of that so that a trial is short",
            (({"model": ("resnet18",)}, 64), (ALWAYS, 32)),
        ),
        low=1,
        high=1024,
        typical=IntRange(8, 64, log=True),
        applies=OURS,
    ),
    Knob(
        "depth",
        "architecture",
        "int",
        "number of convolutional blocks",
        "Simonyan and Zisserman 2015, Very deep convolutional networks",
        always(3),
        Start("He et al. 2016, section 4.2: three stages for images of 32 x 32; here a block each"),
        low=1,
        high=64,
        typical=IntRange(2, 6),
        applies=PLAIN,
    ),
    Knob(
        "convolution",
        "architecture",
        "choice",
        "the convolutions of a block: 3x3; 5x5; two 3x3, with the receptive field of one 5x5; 1x1 to a quarter of "
        "the channels, 3x3, and 1x1 back; 3x3 on each channel and 1x1 across them; 1x3 and 3x1",
        "Simonyan and Zisserman 2015; He et al. 2016; Howard et al. 2017; Szegedy et al. 2016",
        always("3x3"),
        Start(
            "Simonyan and Zisserman 2015, section 2.3",
            then=("stacked_3x3", "5x5", "depthwise_separable", "bottleneck", "asymmetric"),
        ),
        choices=("3x3", "5x5", "stacked_3x3", "bottleneck", "depthwise_separable", "asymmetric"),
        applies=PLAIN,
    ),
    Knob(
        "residual",
        "architecture",
        "bool",
        "whether each block adds its output to its input, through a 1x1 convolution where the channels change",
        "He et al. 2016, Deep residual learning",
        always(False),
        Start("He et al. 2016, section 4.1: a network of few layers trains as well without"),
        choices=(False, True),
        applies=PLAIN,
    ),
    Knob(
        "pooling",
        "architecture",
        "choice",
        "the 2x2 pooling at the end of the backbone",
        "Boureau et al. 2010, A theoretical analysis of feature pooling",
        always("average"),
        Start("Lin et al. 2014; He et al. 2016: the average"),
        choices=("average", "max"),
        applies=OURS,
    ),
    Knob(
        "head",
        "architecture",
        "choice",
        "from the pooled features to the classes: their average over all positions and one linear layer, or all of "
        "them, a hidden layer of 128 units, and one linear layer",
        "Lin et al. 2014, Network in network",
        always("global_average"),
        Start("Lin et al. 2014, section 3.2: fewer weights, and less overfitting"),
        choices=("global_average", "fully_connected"),
        applies=OURS,
    ),
)

NETWORK = (
    Knob(
        "initialization",
        "initialization",
        "choice",
        "the initial weights: torch's default, zero (which cannot learn), normal or truncated normal with "
        "initialization_std, or scaled by the size of the layer; biases are zero except in torch's default",
        "Glorot and Bengio 2010; He et al. 2015, Delving deep into rectifiers; Saxe et al. 2014 (orthogonal)",
        always("default"),
        Start(
            "He et al. 2015, section 2.2: keeps the variance from layer to layer under relu, which torch's default "
            "does not",
            always("kaiming"),
            then=("xavier", "orthogonal", "default", "truncated_normal", "normal"),
        ),
        choices=("default", "zeros", "normal", "truncated_normal", "xavier", "kaiming", "orthogonal"),
    ),
    Knob(
        "initialization_std",
        "initialization",
        "float",
        "standard deviation of the normal distribution; the truncated one ends at two standard deviations",
        "Krizhevsky et al. 2012, section 5",
        (({"initialization": ("truncated_normal",)}, 0.02), (ALWAYS, 0.01)),
        Start("Krizhevsky et al. 2012, section 5; 0.02 for the truncated one as in Devlin et al. 2019, BERT"),
        low=0.0,
        low_open=True,
        high=10.0,
        typical=FloatRange(1e-3, 0.3, log=True),
        applies={"initialization": ("normal", "truncated_normal")},
    ),
    Knob(
        "initialization_distribution",
        "initialization",
        "choice",
        "the distribution of xavier and kaiming; both have the same variance",
        "Glorot and Bengio 2010, equation 16; He et al. 2015, equation 10",
        (({"initialization": ("xavier",)}, "uniform"), (ALWAYS, "normal")),
        Start("Glorot and Bengio 2010, equation 16; He et al. 2015, equation 10: as in the articles"),
        choices=("normal", "uniform"),
        applies={"initialization": ("xavier", "kaiming")},
    ),
    Knob(
        "zero_init_residual",
        "initialization",
        "bool",
        "whether the last normalization (or, without one, convolution) of each residual block starts at zero, so that "
        "the block starts as the identity",
        "Goyal et al. 2017, section 5.1",
        always(False),
        Start(
            "Goyal et al. 2017, section 5.1, and He et al. 2019, Bag of tricks, section 3.1: more accurate; the "
            "default is torchvision's",
            always(True),
        ),
        choices=(False, True),
        applies=OURS,
    ),
    Knob(
        "normalization",
        "normalization",
        "choice",
        "what is normalized after each convolution",
        "Ioffe and Szegedy 2015; Wu and He 2018; Ba et al. 2016; Ulyanov et al. 2016",
        always("batch"),
        Start(
            "Ioffe and Szegedy 2015; Wu and He 2018, figure 5: best from 16 images a batch on",
            then=("group", "layer", "instance"),
        ),
        choices=("none", "batch", "group", "layer", "instance"),
        applies=OURS,
    ),
    Knob(
        "groups",
        "normalization",
        "int",
        "the number of groups, at most: the largest number up to it that divides the channels",
        "Wu and He 2018, Group normalization",
        always(8),
        Start(
            "Wu and He 2018, table 3: 16 channels a group do as well as 32 groups; here 8 groups of 8 to 16 channels"
        ),
        low=1,
        high=1024,
        typical=IntRange(2, 32, log=True),
        applies={"normalization": ("group",)},
    ),
    Knob(
        "pooling_normalization",
        "normalization",
        "choice",
        "what is normalized after the last pooling, over the channels of each position: nothing, their length, or "
        "their sum (by softmax)",
        "Liu et al. 2015, ParseNet (l2)",
        always("none"),
        Start("no network in common use has one", then=("l2",)),
        choices=("none", "l2", "softmax"),
        applies=OURS,
    ),
    Knob(
        "activation",
        "activation",
        "choice",
        "the nonlinearity",
        "Nair and Hinton 2010; Maas et al. 2013; He et al. 2015; Clevert et al. 2016; Hendrycks and Gimpel 2016",
        always("relu"),
        Start(
            "Nair and Hinton 2010; He et al. 2016",
            then=("leaky_relu", "gelu", "silu", "elu", "prelu", "tanh"),
        ),
        choices=("relu", "leaky_relu", "prelu", "elu", "gelu", "silu", "tanh", "sigmoid"),
        applies=OURS,
    ),
    Knob(
        "activation_slope",
        "activation",
        "float",
        "slope of leaky_relu below 0",
        "Maas et al. 2013, section 2",
        always(0.01),
        Start("Maas et al. 2013, section 2; torch's default"),
        low=0.0,
        high=1.0,
        typical=FloatRange(0.01, 0.3, log=True),
        applies={"activation": ("leaky_relu",)},
    ),
)

INPUT = (
    Knob(
        "input",
        "input",
        "choice",
        "how the pixels, 0 to 255, are preprocessed: not at all; divided by 255; minus the mean image, or each "
        "channel's mean, of the training split; or minus the mean and divided by the deviation of each channel",
        "LeCun et al. 1998, Efficient backprop, section 4.3",
        always("standardize"),
        Start(
            "LeCun et al. 1998, section 4.3; He et al. 2016",
            then=("minus_channel_mean", "minus_mean_image", "scale"),
        ),
        choices=("none", "scale", "minus_mean_image", "minus_channel_mean", "standardize"),
    ),
    Knob(
        "augmentation",
        "augmentation",
        "parts",
        "random changes to each training image: shifted by up to an eighth of the side, flipped left to right, rotated "
        "by up to 15 degrees, 0.8 to 1.2 times as bright, with noise of a twentieth of the range, with a square of "
        "half the side erased",
        "Krizhevsky et al. 2012, section 4.1; DeVries and Taylor 2017 (cutout)",
        always("none"),
        Start(
            "He et al. 2016, section 4.2: shifts and flips, of digits shifts alone, or the rotations of Simard et al. "
            "2003; the default is none so that a space says what its images allow",
            (({DATASET: ("digits", "mnist")}, "crop"), (ALWAYS, "crop+flip")),
            then=("crop", "flip", "crop+flip+cutout", "rotate"),
        ),
        parts=("crop", "flip", "rotate", "brightness", "noise", "cutout"),
    ),
)

//! Optimisers, losses and metrics of Keras's JSON; the traits' `config` writes them.

use super::{LayerError, losses::*, metrics::*, names::refused, optimizers::*, schedules::*};
use serde_json::{Map, Value as Json, json};
use std::sync::Arc;

/// What a file names: its class in lower case without `_`, and its options.
struct Named<'j> {
    what: &'static str,
    class: String,
    config: Option<&'j Map<String, Json>>,
}

/// What changes the numbers where it is set to anything else.
const ONLY: [(&str, &str); 10] = [
    ("use_ema", "false"),
    ("gradient_accumulation_steps", "null"),
    ("loss_scale_factor", "null"),
    ("reduction", "\"sum_over_batch_size\""),
    ("ignore_class", "null"),
    ("axis", "-1"),
    ("multi_label", "false"),
    ("label_weights", "null"),
    ("top_k", "null"),
    ("summation_method", "\"interpolation\""),
];

const ADVICE: &str = "load the model alone by `Model::load`, and compile it with what Hubel has";

impl<'j> Named<'j> {
    fn new(what: &'static str, value: &'j Json) -> Result<Self, LayerError> {
        let class = value.as_str().or(value["class_name"].as_str()).unwrap_or_default();
        // A function is written with its name for a configuration, and by Keras 2 in a metric of it.
        let class = match class {
            "function" => value["config"].as_str().unwrap_or_default(),
            "MeanMetricWrapper" => value["config"]["fn"].as_str().unwrap_or_default(),
            class => class,
        };
        // Keras 2 puts a package in front.
        let class = class.rsplit('>').next().unwrap_or_default();
        let class = class.chars().filter(|c| *c != '_').collect::<String>().to_ascii_lowercase();
        let named = Named { what, class, config: value["config"].as_object() };
        for (key, only) in ONLY {
            // Keras 2's `auto` is the default.
            let is_known = |given: &String| given == only || key == "reduction" && given == "\"auto\"";
            if let Some(given) = named.get(key).map(Json::to_string).filter(|given| !is_known(given)) {
                return Err(refused("compile", what, &format!("`{key}` to be {only}"), given, ADVICE));
            }
        }
        Ok(named)
    }

    fn get(&self, key: &str) -> Option<&'j Json> {
        self.config?.get(key).filter(|value| !value.is_null())
    }

    fn number(&self, key: &str, otherwise: f64) -> f64 {
        // A threshold may be a list of one.
        self.get(key).and_then(|v| v.as_f64().or(v[0].as_f64())).unwrap_or(otherwise)
    }

    fn count(&self, key: &str, otherwise: u64) -> u64 {
        self.number(key, otherwise as f64) as u64
    }

    fn is(&self, key: &str) -> bool {
        self.get(key) == Some(&json!(true))
    }

    fn unknown(&self) -> LayerError {
        refused("compile", self.what, &format!("{} that Hubel has", self.what), format!("`{}`", self.class), ADVICE)
    }
}

fn rate(value: &Json) -> Result<Arc<dyn LearningRate>, LayerError> {
    if let Some(rate) = value.as_f64() {
        return Ok(Arc::new(rate));
    }
    let of = Named::new("a schedule", value)?;
    let (from, steps) = (of.number("initial_learning_rate", 0.01), of.count("decay_steps", 1));
    Ok(match &*of.class {
        "exponentialdecay" => {
            Arc::new(ExponentialDecay::new(from, steps, of.number("decay_rate", 1.0)).staircase(of.is("staircase")))
        }
        "inversetimedecay" => {
            Arc::new(InverseTimeDecay::new(from, steps, of.number("decay_rate", 1.0)).staircase(of.is("staircase")))
        }
        "cosinedecay" => {
            let decay = CosineDecay::new(from, steps).alpha(of.number("alpha", 0.0));
            Arc::new(match of.get("warmup_target").and_then(Json::as_f64) {
                None => decay,
                Some(target) => decay.warmup(target, of.count("warmup_steps", 0)),
            })
        }
        "cosinedecayrestarts" => Arc::new(
            CosineDecayRestarts::new(from, of.count("first_decay_steps", 1))
                .growth(of.number("t_mul", 2.0), of.number("m_mul", 1.0))
                .alpha(of.number("alpha", 0.0)),
        ),
        "polynomialdecay" => Arc::new(
            PolynomialDecay::new(from, steps, of.number("end_learning_rate", 1e-4))
                .power(of.number("power", 1.0))
                .cycle(of.is("cycle")),
        ),
        "piecewiseconstantdecay" => {
            let list = |key| of.get(key).and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
            let rates: Vec<f64> = list("values").iter().filter_map(Json::as_f64).collect();
            let [first, rates @ ..] = &rates[..] else { return Err(of.unknown()) };
            let after = list("boundaries").iter().filter_map(Json::as_f64).map(|step| step as u64);
            Arc::new(PiecewiseConstantDecay::new(*first, after.zip(rates.iter().copied()).collect::<Vec<_>>()))
        }
        _ => return Err(of.unknown()),
    })
}

/// Returns the optimiser that an object of Keras describes.
pub(crate) fn optimizer(value: &Json) -> Result<Arc<dyn Optimizer>, LayerError> {
    let of = Named::new("an optimiser", value)?;
    let given = of.get("learning_rate").or(of.get("lr"));
    let mut rate = given.map_or_else(|| Ok(Arc::new(1e-3) as Arc<dyn LearningRate>), rate)?;
    // Up to 2.10 an optimiser had a decay of its own.
    if let (decay, Some(first)) = (of.number("decay", 0.0), given.and_then(Json::as_f64))
        && decay > 0.0
    {
        rate = Arc::new(InverseTimeDecay::new(first, 1, decay));
    }
    let none = Map::new();
    let config = of.config.unwrap_or(&none);
    let built = match &*of.class {
        "sgd" => Sgd::from_config(rate, config),
        "adam" => Adam::from_config(rate, config),
        "adamw" => AdamW::from_config(rate, config),
        "nadam" => Nadam::from_config(rate, config),
        "rmsprop" => RmsProp::from_config(rate, config),
        "adagrad" => Adagrad::from_config(rate, config),
        _ => return Err(of.unknown()),
    };
    built.map_err(|e| refused("compile", of.what, "options that Hubel has", e.to_string(), ADVICE))
}

/// Returns the loss that an object of Keras, or its name, describes.
pub(crate) fn loss(value: &Json) -> Result<Arc<dyn Loss>, LayerError> {
    let of = Named::new("a loss", value)?;
    let (from_logits, smoothing) = (of.is("from_logits"), of.number("label_smoothing", 0.0) as f32);
    Ok(match &*of.class {
        "meansquarederror" | "mse" => Arc::new(MeanSquaredError),
        "meanabsoluteerror" | "mae" => Arc::new(MeanAbsoluteError),
        "meanabsolutepercentageerror" | "mape" => Arc::new(MeanAbsolutePercentageError),
        "meansquaredlogarithmicerror" | "msle" => Arc::new(MeanSquaredLogarithmicError),
        "huber" | "huberloss" => Arc::new(Huber::new().delta(of.number("delta", 1.0) as f32)),
        "logcosh" => Arc::new(LogCosh),
        "hinge" => Arc::new(Hinge),
        "squaredhinge" => Arc::new(SquaredHinge),
        "categoricalhinge" => Arc::new(CategoricalHinge),
        "kldivergence" | "kullbackleiblerdivergence" | "kld" => Arc::new(KLDivergence),
        "poisson" => Arc::new(Poisson),
        "cosinesimilarity" => Arc::new(CosineSimilarity),
        "binarycrossentropy" | "bce" => {
            Arc::new(BinaryCrossentropy::new().from_logits(from_logits).label_smoothing(smoothing))
        }
        "categoricalcrossentropy" => {
            Arc::new(CategoricalCrossentropy::new().from_logits(from_logits).label_smoothing(smoothing))
        }
        "sparsecategoricalcrossentropy" => Arc::new(SparseCategoricalCrossentropy::new().from_logits(from_logits)),
        _ => return Err(of.unknown()),
    })
}

/// Returns the metric that an object of Keras, or its name, describes, and its name in a history if that is not its own.
pub(crate) fn metric(value: &Json) -> Result<(Option<String>, Arc<dyn Metric>), LayerError> {
    let of = Named::new("a metric", value)?;
    let class_id = of.get("class_id").and_then(Json::as_u64).map(|class| class as usize);
    let threshold = |key| of.number(key, 0.5) as f32;
    let metric: Arc<dyn Metric> = match &*of.class {
        "accuracy" | "acc" | "sparsecategoricalaccuracy" | "categoricalaccuracy" => Arc::new(Accuracy),
        "binaryaccuracy" => Arc::new(BinaryAccuracy::new().threshold(threshold("threshold"))),
        "topkcategoricalaccuracy" | "sparsetopkcategoricalaccuracy" => {
            Arc::new(TopKAccuracy::new(of.count("k", 5) as usize))
        }
        "precision" => {
            let new = Precision::new().threshold(threshold("thresholds"));
            Arc::new(class_id.into_iter().fold(new, Precision::class_id))
        }
        "recall" => {
            let new = Recall::new().threshold(threshold("thresholds"));
            Arc::new(class_id.into_iter().fold(new, Recall::class_id))
        }
        "auc" if !of.is("from_logits") => {
            let curve = if of.get("curve") == Some(&json!("PR")) { Curve::PrecisionRecall } else { Curve::Roc };
            Arc::new(Auc::new().curve(curve).thresholds(of.count("num_thresholds", 200) as usize))
        }
        "rootmeansquarederror" => Arc::new(RootMeanSquaredError),
        "meansquarederror" | "mse" => Arc::new(MeanSquaredError),
        "meanabsoluteerror" | "mae" => Arc::new(MeanAbsoluteError),
        "meanabsolutepercentageerror" | "mape" => Arc::new(MeanAbsolutePercentageError),
        "meansquaredlogarithmicerror" | "msle" => Arc::new(MeanSquaredLogarithmicError),
        "logcosh" => Arc::new(LogCosh),
        "hinge" => Arc::new(Hinge),
        "squaredhinge" => Arc::new(SquaredHinge),
        "categoricalhinge" => Arc::new(CategoricalHinge),
        "kldivergence" | "kld" => Arc::new(KLDivergence),
        "poisson" => Arc::new(Poisson),
        _ => return Err(of.unknown()),
    };
    let name = of.get("name").and_then(Json::as_str).filter(|name| *name != metric.name());
    Ok((name.map(str::to_owned), metric))
}

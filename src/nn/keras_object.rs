//! Objects in Keras's JSON: module, class and configuration.

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value as Json, json};

/// Returns an object in Keras's form: module, class, configuration.
pub(super) fn object<E>(module: &str, named: Result<Json, E>) -> Json {
    let mut object = named.unwrap_or_default();
    if let Json::Object(map) = &mut object {
        map.entry("config").or_insert_with(|| json!({}));
        map.insert("module".into(), module.into());
        map.insert("registered_name".into(), Json::Null);
    }
    object
}

/// Returns an object of this class in Keras's form.
pub(super) fn described(module: &str, class: &str, config: Json) -> Json {
    json!({ "module": module, "class_name": class, "config": config, "registered_name": null })
}

/// Returns what `build` makes of a Keras object or of its bare name; `defaults` by class fill in missing options.
pub(super) fn from_object<'de, D: Deserializer<'de>, T>(
    d: D,
    defaults: &[(&str, &str)],
    build: impl FnOnce(Json) -> serde_json::Result<T>,
) -> Result<T, D::Error> {
    let mut value = Json::deserialize(d)?;
    let class = value.as_str().or(value["class_name"].as_str()).unwrap_or_default();
    let class: String = class.split('_').flat_map(capitalized).collect();
    let mut config: Map<String, Json> = match defaults.iter().find(|(name, _)| *name == class) {
        Some((_, text)) => serde_json::from_str(text).unwrap_or_default(),
        None => Map::new(),
    };
    if let Some(given) = value.get_mut("config").and_then(Json::as_object_mut) {
        config.extend(std::mem::take(given).into_iter().filter(|(key, value)| key != "seed" && !value.is_null()));
    }
    let object = if config.is_empty() {
        json!({ "class_name": class })
    } else {
        json!({ "class_name": class, "config": config })
    };
    build(object).map_err(serde::de::Error::custom)
}

fn capitalized(word: &str) -> impl Iterator<Item = char> {
    let mut chars = word.chars();
    chars.next().map(|c| c.to_ascii_uppercase()).into_iter().chain(chars.collect::<Vec<_>>())
}

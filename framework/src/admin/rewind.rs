//! `POST /admin/v1/rewind`: has partitions read from another offset on.
//!
//! The body says which and where to, as JSON: `{"partition": 3, "to": "earliest"}`, `{"all": true, "to": "2026-01-31T12:00:00Z"}`; `to` is
//! `earliest`, `latest`, `committed`, an offset or a time. With `"dry_run": true` nothing is done: the answer says what would be.

use super::{
    AdminSources,
    routes::only,
    verb::{Body, Refusal, audit, authorize, bad_request, json_of},
};
use crate::{OperationError, RewindTo, Rewound};
use actix_web::{
    HttpRequest, HttpResponse,
    web::{self, Data, ServiceConfig},
};
use serde::Deserialize;
use serde_json::{Value, json};

pub(super) fn configure(services: &mut ServiceConfig) {
    let resource = web::resource("/admin/v1/rewind").default_service(web::to(|| async { only("POST") }));
    services.service(resource.route(web::post().to(rewind)));
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Wanted {
    partition: Option<u32>,
    all: bool,
    to: String,
    dry_run: bool,
}

async fn rewind(
    sources: Data<AdminSources>,
    request: HttpRequest,
    body: Body,
) -> Result<HttpResponse, Refusal> {
    authorize(&sources, &request)?;
    let wanted: Wanted =
        serde_json::from_slice(&json_of(&request, body)?).map_err(|error| bad_request(error.to_string()))?;
    let to: RewindTo = wanted.to.parse().map_err(bad_request)?;
    let operations = sources.operations.clone();
    let partitions = match (wanted.partition, wanted.all) {
        (Some(partition), false) => vec![partition],
        (None, true) => operations.owned_partitions(),
        _ => return Err(bad_request("say one of \"partition\" or \"all\": true".into())),
    };
    if wanted.dry_run {
        let mut would = Vec::new();
        for &partition in &partitions {
            would.push(as_json(operations.locate(partition, to).await?));
        }
        return Ok(HttpResponse::Ok().json(json!({ "rewound": would, "dry_run": true })));
    }
    // Begun, they go on when the one who asked has gone.
    let rewinding = partitions.iter().map(|&partition| {
        let operations = operations.clone();
        (partition, actix_rt::spawn(async move { operations.rewind(partition, to).await }))
    });
    let mut done = Vec::new();
    for (partition, result) in rewinding.collect::<Vec<_>>() {
        let result = result.await.unwrap_or(Err(OperationError::NotStored(partition)));
        audit(&request, "rewind", &format!("partition {partition} to {}", wanted.to), &format!("{result:?}"));
        match result {
            Ok(rewound) => done.push(as_json(rewound)),
            // What is done is done: with several, each says for itself.
            Err(error) if partitions.len() > 1 => {
                done.push(json!({ "partition": partition, "error": error.to_string() }));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(HttpResponse::Ok().json(json!({ "rewound": done, "dry_run": false })))
}

fn as_json(rewound: Rewound) -> Value {
    let Rewound { partition, from, to, end } = rewound;
    json!({ "partition": partition, "from": from, "to": to, "end": end })
}

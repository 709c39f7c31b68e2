//! `ImageService`.

use holdfast_core::{Command, RemoveImage};
use holdfast_proto::v1;
use holdfast_proto::v1::image_service_client::ImageServiceClient;
use holdfast_proto::v1::image_service_server::ImageService;
use tonic::{Request, Response, Status, Streaming};

use super::{answered, identified, import};
use crate::fault::Fault;
use crate::forward::at_leader;
use crate::gate::Gate;
use crate::leader::request_id;
use crate::member::Lead;
use crate::reading::{Reading, at_any};

/// The service.
#[derive(Clone)]
pub(crate) struct ImageApi {
    pub(crate) gate: Gate,
}

#[tonic::async_trait]
impl ImageService for ImageApi {
    async fn import(
        &self,
        request: Request<Streaming<v1::ImportRequest>>,
    ) -> Result<Response<v1::ImportResponse>, Status> {
        Ok(Response::new(import::import(self.gate.member()?, request.into_inner()).await?))
    }

    async fn list(
        &self,
        request: Request<v1::ListImagesRequest>,
    ) -> Result<Response<v1::ListImagesResponse>, Status> {
        at_any!(self.gate, request, State, ImageServiceClient.list, list)
    }

    async fn delete(
        &self,
        request: Request<v1::DeleteImageRequest>,
    ) -> Result<Response<v1::DeleteImageResponse>, Status> {
        let request = identified(request, |r| &mut r.request_id);
        at_leader!(self.gate, request, ImageServiceClient.delete, delete)
    }
}

fn list(reading: &Reading, _: v1::ListImagesRequest) -> Result<v1::ListImagesResponse, Fault> {
    let images = reading.picture(|picture| {
        let mut all: Vec<_> = reading.state().images.values().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all.into_iter().map(|image| picture.image(image)).collect()
    });
    Ok(v1::ListImagesResponse { images })
}

async fn delete(
    lead: Lead,
    request: v1::DeleteImageRequest,
) -> Result<v1::DeleteImageResponse, Fault> {
    let lead = lead.expecting(request.expect);
    let id = request_id(&request.request_id)?;
    let command = RemoveImage { name: request.name.parse()? };
    let state = lead.read().await?;
    if answered(&state, id)?.is_none() {
        drop(state);
        lead.propose(id, Command::RemoveImage(command)).await?;
    }
    Ok(v1::DeleteImageResponse {})
}

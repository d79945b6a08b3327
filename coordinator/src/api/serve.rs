//! Turns the functions of the API into the services that tonic wants.

/// Declares a service as a list of its calls, each with the function that answers it.
macro_rules! serve {
    ($service:ident [$($stream:ident = $item:ty),*] {
        $($name:ident: $request:ty => $response:ty = $function:ident;)+
    }) => {
        #[tonic::async_trait]
        impl $service for $crate::api::Api {
            $(type $stream = $crate::sessions::Answers<$item>;)*

            $(
                async fn $name(
                    &self,
                    request: tonic::Request<$request>,
                ) -> Result<tonic::Response<$response>, tonic::Status> {
                    let who = $crate::api::gate::Who::of(&request);
                    Ok(tonic::Response::new(self.$function(&who, request.into_inner()).await?))
                }
            )+
        }
    };
}
pub(super) use serve;

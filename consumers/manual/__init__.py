"""What others read of the contract, made from the code: AsyncAPI, OpenAPI, reference pages."""

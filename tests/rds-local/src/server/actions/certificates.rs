//! `DescribeCertificates`: the authorities that an instance may name, with the end of their validity.

use jiff::Timestamp;

use super::Call;
use crate::server::fault::{Answer, Fault};
use crate::server::xml::Xml;

/// Source: Amazon RDS User Guide, "Certificate authorities".
const AUTHORITIES: [&str; 3] = ["rds-ca-ecc384-g1", "rds-ca-rsa2048-g1", "rds-ca-rsa4096-g1"];
/// When all of them began.
const VALID_FROM: &str = "2021-05-25T00:00:00Z";

pub(super) fn describe(call: &Call) -> Answer {
    call.params.filters(&[])?;
    let wanted = call.params.get("CertificateIdentifier").filter(|text| !text.is_empty());
    let found: Vec<(String, &str)> = AUTHORITIES
        .into_iter()
        .filter(|id| wanted.is_none_or(|wanted| wanted == *id))
        .map(|id| (id.to_owned(), id))
        .collect();
    if let (Some(id), true) = (wanted, found.is_empty()) {
        return Err(Fault::new("CertificateNotFound", 404, format!("Certificate {id} not found.")));
    }
    let valid_till = call.cloud.config().ca_valid_till;
    let (page, marker) = call.params.page(found)?;
    let mut xml = Xml::new();
    xml.put_some("Marker", marker).list("Certificates", "Certificate", page, |xml, id| {
        xml.put("CertificateIdentifier", id)
            .put("CertificateType", "CA")
            .put_time("ValidFrom", VALID_FROM.parse::<Timestamp>().ok())
            .put_time("ValidTill", Some(valid_till))
            .put("CertificateArn", format!("arn:aws:rds:{}::cert:{id}", call.region))
            .put("CustomerOverride", false);
    });
    Ok(xml.done())
}

//! AWS's query protocol: a form that names the action, an XML answer.
//! <https://smithy.io/2.0/aws/protocols/aws-query-protocol.html>,
//! <https://smithy.io/2.0/aws/protocols/aws-ec2-query-protocol.html>

use dr_aws::clients::Clients;
use dr_aws::errors::Call;
use dr_aws::raw::{Answer, Raw, Refusal, Request, Unread, encoded};
use dr_core::ids::Region;

use crate::xml::Element;

/// Pages of a listing: far more than any list of ids can have.
const MOST_PAGES: usize = 1_000;

/// A service with this protocol.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Service {
    /// The name that it is signed and addressed by.
    name: &'static str,
    /// The version of its API.
    version: &'static str,
    /// What the next page is asked for by, and what it is called in an answer.
    page: (&'static str, &'static str),
}

/// <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/Welcome.html>
pub(crate) const EC2: Service =
    Service { name: "ec2", version: "2016-11-15", page: ("NextToken", "nextToken") };
/// <https://docs.aws.amazon.com/autoscaling/ec2/APIReference/Welcome.html>
pub(crate) const AUTO_SCALING: Service =
    Service { name: "autoscaling", version: "2011-01-01", page: ("NextToken", "NextToken") };
/// <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/Welcome.html>
pub(crate) const ELB: Service =
    Service { name: "elasticloadbalancing", version: "2015-12-01", page: ("Marker", "NextMarker") };

/// A service in one Region.
#[derive(Debug, Clone)]
pub(crate) struct Query {
    raw: Raw<Element>,
    service: Service,
}

/// The parameters of a call.
#[derive(Debug, Clone, Default)]
pub(crate) struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// The same and one more.
    #[must_use]
    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.0.push((name.to_owned(), value.into()));
        self
    }

    /// The same and a list: `<name>.1`, `<name>.2` …; the name ends in `.member` where the service wants that.
    #[must_use]
    pub(crate) fn with_list(self, name: &str, values: impl IntoIterator<Item: AsRef<str>>) -> Self {
        let values = values.into_iter().enumerate();
        values.fold(self, |all, (at, value)| all.with(&format!("{name}.{}", at + 1), value.as_ref()))
    }
}

impl Query {
    pub(crate) fn new(clients: &Clients, service: Service, region: &Region) -> Self {
        Self { raw: Raw::new(clients.config(), service.name, region, read), service }
    }

    /// Makes one call. The answer is the element that has its results.
    pub(crate) async fn ask(
        &self,
        call: &Call,
        action: &str,
        parameters: Parameters,
    ) -> Result<Element, Refusal> {
        let head = [("Action", action), ("Version", self.service.version)];
        let head = head.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        let pairs =
            head.chain(parameters.0).map(|(name, value)| format!("{}={}", encoded(&name), encoded(&value)));
        let request = Request::new("POST", "/").with_body(
            "application/x-www-form-urlencoded; charset=utf-8",
            pairs.collect::<Vec<_>>().join("&"),
        );
        let answer = self.raw.ask(call, request).await?;
        // Any other document, such as a proxy's page, would look like an answer in which nothing is found.
        if answer.name() != format!("{action}Response") {
            return Err(call.unreadable("it answers something else").into());
        }
        Ok(answer.child(&format!("{action}Result")).cloned().unwrap_or(answer))
    }

    /// Makes a call and those for the further pages of its answer; `list` must be in each.
    pub(crate) async fn pages(
        &self,
        call: &Call,
        action: &str,
        list: &str,
        parameters: Parameters,
    ) -> Result<Vec<Element>, Refusal> {
        let mut pages: Vec<Element> = Vec::new();
        let mut next: Option<String> = None;
        loop {
            let (asked, answered) = self.service.page;
            let parameters = match &next {
                Some(token) => parameters.clone().with(asked, token),
                None => parameters.clone(),
            };
            let page = self.ask(call, action, parameters).await?;
            if page.child(list).is_none() {
                return Err(call.unreadable(&format!("{list} is absent")).into());
            }
            let token = page.text(&[answered]).map(str::to_owned);
            pages.push(page);
            match token {
                None => return Ok(pages),
                Some(token) if pages.len() == MOST_PAGES || next.as_ref() == Some(&token) => {
                    return Err(call.unreadable("its pages have no end").into());
                }
                more => next = more,
            }
        }
    }
}

/// EC2 says what it refuses in `<Response><Errors><Error>`, the others in `<ErrorResponse><Error>`.
fn read(answer: Answer<'_>) -> Result<Element, Unread> {
    let parsed = Element::parse(answer.body());
    if answer.is_success() {
        return parsed.map_err(Unread::unreadable);
    }
    // An answer on the way (a load balancer's, a proxy's) has no code, and no XML.
    let root = parsed.unwrap_or_default();
    let error = root.child("Errors").unwrap_or(&root).child("Error").unwrap_or(&root);
    let text = |name: &str| error.text(&[name]).map(str::to_owned);
    Err(Unread::Refused { code: text("Code"), message: text("Message") })
}

use clap::Parser;

use super::*;
use crate::cli::cluster_domain::DomainSource;

#[derive(Debug, Parser)]
struct CommandLine {
    #[command(flatten)]
    args: Args,
}

fn parse(line: &[&str]) -> Result<Config, String> {
    let line = CommandLine::try_parse_from(std::iter::once(&"run").chain(line))
        .map_err(|e| e.to_string())?;
    line.args
        .parse()
        .map(|(config, ..)| config)
        .map_err(|e| e.to_string())
}

#[test]
fn the_certificate_has_the_name_that_the_api_server_calls() {
    let line = [
        "--namespace",
        "ns",
        "--service",
        "hooks",
        "--certificate-name",
        "192.0.2.1",
    ];
    let config = parse(&[&line[..], &["--certificate-name", "a.example"]].concat()).unwrap();
    let ServingCertificate::Own { names } = config.certificate else {
        panic!("another source")
    };
    assert_eq!(names, ["hooks.ns.svc", "192.0.2.1", "a.example"]);
}

#[test]
fn a_certificate_from_files_needs_both() {
    let problem = parse(&["--certificate-source=files", "--certificate-file=tls.crt"])
        .err()
        .unwrap();
    assert!(problem.contains("--key-file"), "{problem}");
    assert!(
        parse(&[
            "--certificate-source=files",
            "--certificate-file=tls.crt",
            "--key-file=tls.key"
        ])
        .is_ok()
    );
}

#[test]
fn invalid_values_are_refused_by_the_command_line() {
    for (line, says) in [
        (
            "--default-issuer=pg-issuer",
            "use Issuer/NAME or ClusterIssuer/NAME",
        ),
        ("--log=pgrekey=loud", "invalid"),
        (
            "--pod-security=loose",
            "use restricted, baseline or privileged",
        ),
        ("--cluster-domain=*.local", "is no DNS domain"),
        ("--webhook-address=9443", "invalid socket address"),
    ] {
        let problem = parse(&[line]).err().unwrap();
        assert!(problem.contains(says), "{line}: {problem}");
    }
}

#[test]
fn the_controllers_get_the_domain_of_the_cluster() {
    let config = parse(&["--cluster-domain", "K8s.Example."]).unwrap();
    let settings = config.controllers.expect("controllers");
    assert_eq!(settings.cluster_domain, "k8s.example");
    assert_eq!(config.cluster_domain.source, DomainSource::Flag);
}

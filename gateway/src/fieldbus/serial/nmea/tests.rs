//! Published example sentences and what they mean.

use super::*;

fn decode(line: &str) -> Vec<String> {
    let mut nmea = Nmea::new(&[]).unwrap();
    let found = nmea.decode(line).unwrap().unwrap();
    let print = |point: &Found| {
        let printed = format!(
            "{}={} {}",
            point.name,
            point.value,
            point.unit.unwrap_or("")
        );
        printed.trim_end().to_owned()
    };
    found.iter().map(print).collect()
}

fn error(line: &str) -> String {
    Nmea::new(&[]).unwrap().decode(line).unwrap_err()
}

/// A sentence with its right checksum.
fn sealed(body: &str) -> String {
    let checksum = body.bytes().fold(0, |xor, byte| xor ^ byte);
    format!("${body}*{checksum:02X}")
}

#[test]
fn published_examples_decode_to_their_values() {
    let vectors: &[(&str, &[&str])] = &[
        (
            "$GPGGA,123519,4807.038,N,01131.000,E,1,08,0.9,545.4,M,46.9,M,,*47",
            &[
                "fix-quality=1",
                "latitude=48.1173 °",
                "longitude=11.5166667 °",
                "satellites=8",
                "hdop=0.9",
                "altitude=545.4 m",
                "geoid-separation=46.9 m",
            ],
        ),
        (
            "$GPRMC,123519,A,4807.038,N,01131.000,E,022.4,084.4,230394,003.1,W*6A",
            &[
                "latitude=48.1173 °",
                "longitude=11.5166667 °",
                "speed-knots=22.4 kn",
                "course-true=84.4 °",
                "magnetic-variation=-3.1 °",
            ],
        ),
        (
            "$GPGLL,4916.45,N,12311.12,W,225444,A*31",
            &["latitude=49.2741667 °", "longitude=-123.1853333 °"],
        ),
        (
            "$GPVTG,054.7,T,034.4,M,005.5,N,010.2,K*48",
            &[
                "course-true=54.7 °",
                "course-magnetic=34.4 °",
                "speed-knots=5.5 kn",
                "speed-kmh=10.2 km/h",
            ],
        ),
        ("$GPHDT,274.07,T*03", &["heading-true=274.07 °"]),
        (
            "$HCHDG,101.1,,,7.1,W*3C",
            &["heading-magnetic=101.1 °", "magnetic-variation=-7.1 °"],
        ),
        (
            "$WIMWV,214.8,R,0.1,K,A*28",
            &[
                "wind-angle-relative=214.8 °",
                "wind-speed-relative=0.1 km/h",
            ],
        ),
        (
            "$SDDBT,7.8,f,2.4,M,1.3,F*0D",
            &["depth-below-transducer=2.4 m"],
        ),
        (
            "$INDPT,2.3,0.0*46",
            &["depth-below-transducer=2.3 m", "transducer-offset=0 m"],
        ),
        ("$INMTW,17.9,C*1B", &["water-temperature=17.9 °C"]),
        (
            "$GPZDA,160012.71,11,03,2004,-1,00*7D",
            &["utc=2004-03-11T16:00:12Z"],
        ),
    ];
    for (line, expected) in vectors {
        assert_eq!(decode(line), *expected, "{line}");
    }
}

#[test]
fn weather_sentences_decode_field_by_field() {
    let mda = "WIMDA,29.92,I,1.0132,B,21.5,C,,,54.2,,11.9,C,190.0,T,187.1,M,4.2,N,2.2,M";
    assert_eq!(
        decode(&sealed(mda)),
        [
            "pressure=1.0132 bar",
            "air-temperature=21.5 °C",
            "humidity=54.2 %",
            "dew-point=11.9 °C",
            "wind-direction-true=190 °",
            "wind-direction-magnetic=187.1 °",
            "wind-speed-knots=4.2 kn",
            "wind-speed=2.2 m/s",
        ]
    );
    assert_eq!(
        decode(&sealed("WIMWD,190.0,T,187.1,M,4.2,N,2.2,M")),
        [
            "wind-direction-true=190 °",
            "wind-direction-magnetic=187.1 °",
            "wind-speed-knots=4.2 kn",
            "wind-speed=2.2 m/s",
        ]
    );
}

#[test]
fn each_transducer_is_a_point_under_its_own_name() {
    assert_eq!(
        decode(&sealed(
            "WIXDR,C,-2.50,C,ENV_OUT,P,1.01325,B,,H,54.2,P,,U,,V,BATT"
        )),
        [
            "ENV_OUT=-2.5 °C",
            "pressure-2=1.01325 bar",
            "humidity-3=54.2 %"
        ]
    );
}

#[test]
fn shafts_and_engines_are_told_apart() {
    assert_eq!(
        decode(&sealed("IIRPM,E,1,2418.2,10.5,A")),
        ["engine-1-speed=2418.2 rpm", "engine-1-pitch=10.5 %"]
    );
}

#[test]
fn southern_and_western_positions_are_negative_to_seven_decimals() {
    assert_eq!(
        decode(&sealed("GPGLL,3351.65012,S,07040.99999,W,1,A")),
        ["latitude=-33.8608353 °", "longitude=-70.6833332 °"]
    );
}

#[test]
fn a_receiver_without_a_fix_gives_no_position() {
    assert_eq!(
        decode(&sealed("GPGGA,123519,4807.038,N,01131.000,E,0,00,,,M,,M,,")),
        ["fix-quality=0"]
    );
    assert!(decode(&sealed("GPRMC,123519,V,4807.038,N,01131.000,E,,,230394,,")).is_empty());
    assert!(decode(&sealed("WIMWV,214.8,R,0.1,K,V")).is_empty());
}

#[test]
fn unknown_proprietary_and_unwanted_sentences_are_ignored() {
    let mut nmea = Nmea::new(&["MTW".to_owned()]).unwrap();
    for body in [
        "PGRME,15.0,M,45.0,M,25.0,M",
        "GPGSV,1,1,0",
        "GPHDT,274.07,T",
        "X",
    ] {
        assert_eq!(nmea.decode(&sealed(body)), Ok(None), "{body}");
    }
    assert_eq!(
        nmea.decode(&sealed("INMTW,17.9,C")).unwrap().unwrap().len(),
        1
    );
}

#[test]
fn a_wrong_checksum_is_refused_with_the_right_one() {
    assert_eq!(error("$GPHDT,274.17,T*03"), "checksum *02");
    assert_eq!(error("$GPHDT,274.07,T*"), "checksum *03");
}

#[test]
fn a_checksum_may_lack_until_the_instrument_has_sent_one() {
    let mut nmea = Nmea::new(&[]).unwrap();
    assert!(nmea.decode("$GPHDT,274.07,T").unwrap().is_some());
    assert!(nmea.decode("$GPHDT,274.07,T*03").unwrap().is_some());
    assert!(nmea.decode("$GPHDT,27").is_err(), "cut short");
}

#[test]
fn noise_before_a_sentence_does_not_hurt_it() {
    assert_eq!(
        decode("$GPHDT,2\u{fffd}7$GPHDT,274.07,T*03\r"),
        ["heading-true=274.07 °"]
    );
}

#[test]
fn a_field_that_is_not_what_it_should_be_is_named() {
    assert_eq!(error(&sealed("GPHDT,north,T")), "a number in field 1");
    assert_eq!(
        error(&sealed("GPGLL,9107.0,N,01131.0,E,1,A")),
        "degrees and minutes up to 90° in field 1"
    );
    assert_eq!(
        error(&sealed("GPGLL,4860.0,N,01131.0,E,1,A")),
        "degrees and minutes up to 90° in field 1"
    );
    assert_eq!(
        error(&sealed("GPGLL,4807.0,,01131.0,E,1,A")),
        "a hemisphere in field 2"
    );
    assert_eq!(error("hello"), "a sentence that begins with $ or !");
}

#[test]
fn an_unknown_type_in_the_configuration_is_refused_with_the_known_ones() {
    let error = Nmea::new(&["GGB".to_owned()]).unwrap_err();
    assert!(error.starts_with("\"GGB\" is not a known NMEA 0183 sentence type; known are DBT,"));
}

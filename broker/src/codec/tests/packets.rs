//! Strategies that make valid packets, and what 3.1.1 leaves of them.

use std::num::{NonZeroU16, NonZeroU32};

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;

pub(super) fn packet() -> impl Strategy<Value = Packet> {
    prop_oneof![
        connect().prop_map(|connect| Packet::Connect(Box::new(connect))),
        connack().prop_map(|connack| Packet::ConnAck(Box::new(connack))),
        publish().prop_map(Packet::Publish),
        ack(&[0x00, 0x10]).prop_map(Packet::PubAck),
        ack(&[0x00, 0x10]).prop_map(Packet::PubRec),
        ack(&[0x00, 0x92]).prop_map(Packet::PubRel),
        ack(&[0x00, 0x92]).prop_map(Packet::PubComp),
        subscribe().prop_map(Packet::Subscribe),
        (id(), codes(&[0, 1, 2, 0x80, 0x87, 0x97]), ack_properties()).prop_map(|(packet_id, codes, properties)| Packet::SubAck(SubAck {
            packet_id,
            codes,
            properties
        })),
        (id(), users(), vec(text(), 1..4)).prop_map(|(packet_id, user, filters)| Packet::Unsubscribe(Unsubscribe {
            packet_id,
            user,
            filters
        })),
        (id(), codes(&[0, 0x11, 0x8f]), ack_properties()).prop_map(|(packet_id, codes, properties)| Packet::UnsubAck(UnsubAck {
            packet_id,
            codes,
            properties
        })),
        Just(Packet::PingReq),
        Just(Packet::PingResp),
        disconnect().prop_map(Packet::Disconnect),
    ]
}

pub(super) fn auth() -> impl Strategy<Value = Auth> {
    let properties =
        (text(), option::of(data()), option::of(text()), users()).prop_map(|(method, data, reason_string, user)| AuthProperties {
            method: Some(method),
            data,
            reason_string,
            user,
        });
    (code(&[0x00, 0x18, 0x19]), properties).prop_map(|(reason, properties)| Auth { reason, properties })
}

pub(super) fn publish() -> impl Strategy<Value = Publish> {
    let head = (any::<bool>(), qos(), any::<bool>(), topic(), id());
    let properties = (
        option::of(id()),
        option::of(any::<u32>()),
        vec(subscription_id(), 0..3),
        travelling(),
    );
    (head, properties, vec(any::<u8>(), 0..300)).prop_map(|((dup, qos, retain, topic, id), properties, payload)| {
        let (topic_alias, expiry, subscription_ids, travelling) = properties;
        let acked = qos != QoS::AtMostOnce;
        Publish {
            dup: dup && acked,
            qos,
            retain,
            topic,
            packet_id: acked.then_some(id),
            properties: PublishProperties {
                topic_alias,
                expiry,
                subscription_ids,
                travelling,
            },
            payload: payload.into(),
        }
    })
}

pub(super) fn on_v311(packet: &Packet) -> Packet {
    let mut packet = packet.clone();
    match &mut packet {
        Packet::Connect(connect) => {
            connect.properties = ConnectProperties::default();
            if let Some(will) = &mut connect.will {
                will.properties = WillProperties::default();
            }
        }
        Packet::ConnAck(connack) => {
            connack.properties = ConnAckProperties::default();
            connack.code = ReasonCode::from_return_code(connack.code.to_return_code()).unwrap();
        }
        Packet::Publish(publish) => publish.properties = PublishProperties::default(),
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
            *ack = Ack::new(ack.packet_id, ReasonCode::SUCCESS);
        }
        Packet::Subscribe(subscribe) => {
            subscribe.subscription_id = None;
            subscribe.user.clear();
            for subscription in &mut subscribe.filters {
                subscription.options = SubscribeOptions {
                    qos: subscription.options.qos,
                    ..SubscribeOptions::default()
                };
            }
        }
        Packet::SubAck(suback) => {
            suback.properties = AckProperties::default();
            for code in suback.codes.iter_mut().filter(|code| code.is_error()) {
                *code = ReasonCode::UNSPECIFIED_ERROR;
            }
        }
        Packet::Unsubscribe(unsubscribe) => unsubscribe.user.clear(),
        Packet::UnsubAck(unsuback) => {
            unsuback.codes.clear();
            unsuback.properties = AckProperties::default();
        }
        Packet::Disconnect(disconnect) => *disconnect = Disconnect::default(),
        Packet::PingReq | Packet::PingResp | Packet::Auth(_) => {}
    }
    packet
}

fn connect() -> impl Strategy<Value = Connect> {
    let properties = (
        (
            option::of(any::<u32>()),
            option::of(id()),
            option::of(any::<NonZeroU32>()),
            option::of(any::<u16>()),
        ),
        (
            option::of(any::<bool>()),
            option::of(any::<bool>()),
            users(),
            option::of((text(), data())),
        ),
    )
        .prop_map(
            |((session_expiry, receive_maximum, maximum_packet_size, topic_alias_maximum), (response, problem, user, method))| {
                let (authentication_method, authentication_data) = method.unzip();
                ConnectProperties {
                    session_expiry,
                    receive_maximum,
                    maximum_packet_size,
                    topic_alias_maximum,
                    request_response_information: response,
                    request_problem_information: problem,
                    user,
                    authentication_method,
                    authentication_data,
                }
            },
        );
    let will = (
        topic(),
        data(),
        qos(),
        any::<bool>(),
        (option::of(any::<u32>()), option::of(any::<u32>()), travelling()),
    )
        .prop_map(|(topic, payload, qos, retain, (delay, expiry, travelling))| Will {
            topic,
            payload,
            qos,
            retain,
            properties: WillProperties { delay, expiry, travelling },
        });
    (
        any::<bool>(),
        any::<u16>(),
        text(),
        option::of(will),
        option::of((text(), option::of(data()))),
        properties,
    )
        .prop_map(|(clean_start, keep_alive, client_id, will, login, properties)| {
            let (username, password) = login.unzip();
            Connect {
                version: Version::V5,
                clean_start,
                keep_alive,
                client_id,
                will,
                username,
                password: password.flatten(),
                properties,
            }
        })
}

fn connack() -> impl Strategy<Value = ConnAck> {
    let numbers = (
        option::of(any::<u32>()),
        option::of(id()),
        option::of(any::<NonZeroU32>()),
        option::of(any::<u16>()),
        option::of(any::<u16>()),
    );
    let flags = vec(option::of(any::<bool>()), 5);
    let texts = vec(option::of(text()), 5);
    (
        any::<bool>(),
        code(&[0, 0x80, 0x84, 0x85, 0x87, 0x97, 0x9f]),
        numbers,
        flags,
        texts,
        option::of(data()),
        users(),
    )
        .prop_map(|(present, code, numbers, flags, texts, authentication_data, user)| ConnAck {
            session_present: present && !code.is_error(),
            code,
            properties: ConnAckProperties {
                session_expiry: numbers.0,
                receive_maximum: numbers.1,
                maximum_qos: flags[0].map(|one| if one { QoS::AtLeastOnce } else { QoS::AtMostOnce }),
                retain_available: flags[1],
                maximum_packet_size: numbers.2,
                assigned_client_id: texts[0].clone(),
                topic_alias_maximum: numbers.3,
                reason_string: texts[1].clone(),
                user,
                wildcard_available: flags[2],
                subscription_id_available: flags[3],
                shared_available: flags[4],
                server_keep_alive: numbers.4,
                response_information: texts[2].clone(),
                server_reference: texts[3].clone(),
                authentication_method: texts[4].clone(),
                authentication_data,
            },
        })
}

fn subscribe() -> impl Strategy<Value = Subscribe> {
    let handling = prop_oneof![
        Just(RetainHandling::Send),
        Just(RetainHandling::SendIfNew),
        Just(RetainHandling::DoNotSend)
    ];
    let options = (qos(), any::<bool>(), any::<bool>(), handling).prop_map(|(qos, no_local, retain_as_published, retain_handling)| {
        SubscribeOptions {
            qos,
            no_local,
            retain_as_published,
            retain_handling,
        }
    });
    let filters = vec(
        (text(), options).prop_map(|(filter, options)| Subscription { filter, options }),
        1..4,
    );
    (id(), option::of(subscription_id()), users(), filters).prop_map(|(packet_id, subscription_id, user, filters)| Subscribe {
        packet_id,
        subscription_id,
        user,
        filters,
    })
}

fn disconnect() -> impl Strategy<Value = Disconnect> {
    let side = prop_oneof![
        option::of(any::<u32>()).prop_map(|session_expiry| (session_expiry, None)),
        text().prop_map(|server_reference| (None, Some(server_reference))),
    ];
    (code(&[0x00, 0x81, 0x8e, 0x93]), side, option::of(text()), users()).prop_map(
        |(reason, (session_expiry, server_reference), reason_string, user)| Disconnect {
            reason,
            properties: DisconnectProperties {
                session_expiry,
                reason_string,
                user,
                server_reference,
            },
        },
    )
}

fn ack(reasons: &'static [u8]) -> impl Strategy<Value = Ack> {
    (id(), code(reasons), ack_properties()).prop_map(|(packet_id, reason, properties)| Ack {
        packet_id,
        reason,
        properties,
    })
}

fn ack_properties() -> impl Strategy<Value = AckProperties> {
    (option::of(text()), users()).prop_map(|(reason_string, user)| AckProperties { reason_string, user })
}

fn travelling() -> impl Strategy<Value = Bytes> {
    let fixed = (
        option::of(any::<bool>()),
        option::of(text()),
        option::of(topic()),
        option::of(data()),
    );
    (fixed, users())
        .prop_map(|((format, content, response, correlation), user)| {
            let fixed = [
                format.map(Property::PayloadFormat),
                content.map(Property::ContentType),
                response.map(Property::ResponseTopic),
                correlation.map(Property::CorrelationData),
            ];
            fixed
                .into_iter()
                .flatten()
                .chain(user.into_iter().map(Property::User))
                .collect::<Vec<_>>()
        })
        .prop_shuffle()
        .prop_map(|properties| {
            let mut out = BytesMut::new();
            for property in properties {
                property.write(&mut out).unwrap();
            }
            out.freeze()
        })
}

fn code(values: &'static [u8]) -> impl Strategy<Value = ReasonCode> {
    proptest::sample::select(values).prop_map(ReasonCode)
}

fn codes(values: &'static [u8]) -> impl Strategy<Value = Vec<ReasonCode>> {
    vec(code(values), 1..4)
}

fn id() -> impl Strategy<Value = NonZeroU16> {
    any::<NonZeroU16>()
}

fn subscription_id() -> impl Strategy<Value = NonZeroU32> {
    (1..=268_435_455u32).prop_map(|id| NonZeroU32::new(id).unwrap())
}

fn qos() -> impl Strategy<Value = QoS> {
    prop_oneof![Just(QoS::AtMostOnce), Just(QoS::AtLeastOnce), Just(QoS::ExactlyOnce)]
}

fn topic() -> impl Strategy<Value = Text> {
    "[a-z0-9/$é漢]{1,24}".prop_map(Text::from)
}

fn text() -> impl Strategy<Value = Text> {
    "\\PC{0,16}".prop_map(Text::from)
}

fn data() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

fn users() -> impl Strategy<Value = UserProperties> {
    vec((text(), text()), 0..3)
}

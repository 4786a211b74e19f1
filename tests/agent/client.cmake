hatchery_test(agent_client_test
  SOURCES client_channel_test.cc client_contract_test.cc client_dial_test.cc client_fake_test.cc
          client_foreign_test.cc client_ttrpc_test.cc kata_wire_test.cc
  DEPS hatchery_agent_client hatchery_agent_fake hatchery_guest)

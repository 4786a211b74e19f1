#include "bench/report_json.h"

#include <gmock/gmock.h>

#include <valijson/adapters/nlohmann_json_adapter.hpp>
#include <valijson/schema.hpp>
#include <valijson/schema_parser.hpp>
#include <valijson/validator.hpp>

#include "base/files.h"
#include "base/json.h"
#include "bench/table.h"
#include "tests/bench/sample_report.h"

namespace hatchery::bench {
namespace {

using testing::HasSubstr;
using PlainJson = nlohmann::json;  // what valijson reads

// What the schema has against a document; empty if nothing.
class SchemaTest : public testing::Test {
 protected:
  void SetUp() override {
    const auto text = ReadFile(fs::path(HATCHERY_SOURCE_DIR) / "bench" / "report.schema.json");
    ASSERT_TRUE(text.has_value()) << ToString(text.error());
    schema_text_ = PlainJson::parse(*text);
    valijson::SchemaParser parser;
    parser.populateSchema(valijson::adapters::NlohmannJsonAdapter(schema_text_), schema_);
  }

  std::string Complaints(const PlainJson& document) {
    valijson::Validator validator;
    valijson::ValidationResults results;
    validator.validate(schema_, valijson::adapters::NlohmannJsonAdapter(document), &results);
    std::string text;
    for (valijson::ValidationResults::Error error; results.popError(error);) {
      for (const auto& part : error.context) text += part;
      text += ": " + error.description + "\n";
    }
    return text;
  }

  PlainJson schema_text_;
  valijson::Schema schema_;
};

PlainJson Written() { return PlainJson::parse(ToJsonText(SampleReport())); }

TEST_F(SchemaTest, AWrittenReportIsValid) { EXPECT_EQ(Complaints(Written()), ""); }

TEST_F(SchemaTest, AReportOfNothingIsValid) {
  Report report{.sections = {{.benchmark = "cold-start",
                              .series = {{.key = "a", .name = "a"}},
                              .figures = {{.key = "f",
                                           .name = "f",
                                           .value = {"a"},
                                           .against = Number{"a"},
                                           .target = Target{}}}}}};
  EXPECT_EQ(Complaints(PlainJson::parse(ToJsonText(report))), "");
}

// Every single field that is required, or that has a type, is seen to be so: each is taken away and
// spoiled in turn.
TEST_F(SchemaTest, SpoiledReportsAreNot) {
  for (const char* pointer : {"/format",
                              "/version",
                              "/command",
                              "/environment",
                              "/environment/cpu",
                              "/environment/cores",
                              "/environment/memory_mib",
                              "/environment/template_digest",
                              "/sections",
                              "/sections/0/benchmark",
                              "/sections/0/parameters",
                              "/sections/0/notes",
                              "/sections/0/series/0/key",
                              "/sections/0/series/0/unit",
                              "/sections/0/series/0/warm_up",
                              "/sections/0/series/0/samples",
                              "/sections/0/series/0/summary",
                              "/sections/0/series/0/summary/count",
                              "/sections/0/series/1/failures",
                              "/sections/0/figures/0/value",
                              "/sections/0/figures/0/value/statistic",
                              "/sections/0/figures/0/inverse",
                              "/sections/0/figures/0/target/limit",
                              "/sections/0/figures/0/met",
                              "/sections/2/curves/0/points",
                              "/sections/2/curves/0/plot"}) {
    const PlainJson::json_pointer at(pointer);
    PlainJson spoiled = Written();
    ASSERT_TRUE(spoiled.contains(at)) << pointer;
    spoiled[at] = nullptr;
    EXPECT_NE(Complaints(spoiled), "") << pointer << " is null";
    spoiled[at.parent_pointer()].erase(at.back());
    EXPECT_NE(Complaints(spoiled), "") << pointer << " is missing";
  }
  PlainJson spoiled = Written();
  spoiled["sections"][2]["curves"][0]["points"][0].push_back(1);
  EXPECT_NE(Complaints(spoiled), "") << "a point of three";
  spoiled = Written();
  spoiled["sections"][0]["series"][0]["samples"][3] = "2.4";
  EXPECT_NE(Complaints(spoiled), "") << "a sample that is text";
}

// Walks a schema: whatever can stand in a report is explained.
void ExpectDescriptions(const PlainJson& schema, const std::string& path) {
  if (!schema.contains("$ref")) EXPECT_TRUE(schema.contains("description")) << path;
  for (const char* members : {"properties", "definitions"}) {
    if (!schema.contains(members)) continue;
    for (const auto& [name, each] : schema[members].items()) {
      ExpectDescriptions(each, path + "/" + name);
    }
  }
  for (const char* inner : {"items", "additionalProperties"}) {
    if (schema.contains(inner)) ExpectDescriptions(schema[inner], path + "/" + inner);
  }
}

TEST_F(SchemaTest, ExplainsEveryField) { ExpectDescriptions(schema_text_, ""); }

// And the other way round: what is written is in the schema.
void ExpectKnown(const PlainJson& root, const PlainJson& schema, const PlainJson& document,
                 const std::string& path) {
  if (schema.contains("$ref")) {
    const auto name = schema["$ref"].get<std::string>().substr(1);
    return ExpectKnown(root, root[PlainJson::json_pointer(name)], document, path);
  }
  if (document.is_array()) {
    for (const auto& each : document) ExpectKnown(root, schema["items"], each, path + "[]");
  } else if (document.is_object() && schema.contains("properties")) {
    for (const auto& [name, value] : document.items()) {
      ASSERT_TRUE(schema["properties"].contains(name)) << path << "." << name;
      ExpectKnown(root, schema["properties"][name], value, path + "." + name);
    }
  }
}

TEST_F(SchemaTest, KnowsEveryFieldThatIsWritten) {
  ExpectKnown(schema_text_, schema_text_, Written(), "");
}

TEST(ReportJson, SurvivesItsJson) {
  const std::string text = ToJsonText(SampleReport());
  const auto read = FromJsonText(text);
  ASSERT_TRUE(read.has_value()) << ToString(read.error());
  EXPECT_EQ(ToJsonText(*read), text);
  EXPECT_EQ(RenderTable(*read), RenderTable(SampleReport()));
}

TEST(ReportJson, SaysWhatFiguresComeTo) {
  Report report{
      .sections = {{.benchmark = "b",
                    .series = {{.key = "v", .samples = {3}}, {.key = "a", .samples = {2}}},
                    .figures = {{.key = "f",
                                 .value = {"v"},
                                 .against = Number{"a"},
                                 .target = Target{Target::Is::kAtMost, 1}}}}}};
  const auto json = PlainJson::parse(ToJsonText(report));
  const auto& figure = json["sections"][0]["figures"][0];
  EXPECT_EQ(figure["value"]["number"], 3);
  EXPECT_EQ(figure["against"]["number"], 2);
  EXPECT_EQ(figure["ratio"], 1.5);
  EXPECT_EQ(figure["met"], false);
  EXPECT_EQ(figure["missed_by"], 1.5);
  EXPECT_FALSE(figure.contains("ratio_interval")) << "of one sample";
}

std::string ErrorOf(const std::string& text) {
  const auto read = FromJsonText(text);
  return read ? "" : read.error().message;
}

TEST(ReportJson, RefusesWhatIsNoReport) {
  for (const char* text : {"", "{", "[]", "7", "null", "{}", R"({"format": 1})",
                           R"({"format": "hatchery-bench", "version": "1"})",
                           R"({"format": "hatchery-bench", "version": 1})",
                           R"({"format": "hatchery-bench", "version": 1, "environment": []})"}) {
    EXPECT_NE(ErrorOf(text), "") << text;
  }
  EXPECT_THAT(ErrorOf(R"({"format": "hatchery-bench", "version": 2})"), HasSubstr("version 2"));
  EXPECT_THAT(ErrorOf(std::string(100'000, '[')), HasSubstr("nested too deep"));
  EXPECT_NE(ErrorOf(std::string(100'000, '[') + std::string(100'000, ']')), "");
}

TEST(ReportJson, NamesWhatIsWrongAndWhere) {
  auto error_with = [](const char* pointer, const PlainJson& value) {
    PlainJson json = Written();
    json[PlainJson::json_pointer(pointer)] = value;
    return ErrorOf(json.dump());
  };
  EXPECT_THAT(error_with("/sections/0/series/2/samples/7", "x"),
              HasSubstr("sections[0].series[2].samples[7] is no number"));
  EXPECT_THAT(error_with("/sections/0/series/1/failures/x", -1),
              HasSubstr("sections[0].series[1].failures[\"x\"] is no count"));
  EXPECT_THAT(error_with("/sections/1/series/0/unit", "ms"),
              HasSubstr("sections[1].series[0].unit is 'ms', which is none of s, B, 1/s"));
  EXPECT_THAT(error_with("/sections/0/series/1/key", "cold_boot"), HasSubstr("is there twice"));
  EXPECT_THAT(error_with("/sections/0/figures/1/value/series", "nope"),
              HasSubstr("sections[0].figures[1].value.series is 'nope', and there is no such"));
  EXPECT_THAT(error_with("/sections/2/curves/0/points/1", PlainJson::array({1})),
              HasSubstr("curves[0].points[1] is not two numbers"));
  EXPECT_THAT(error_with("/environment/cores", 1e12), HasSubstr("environment.cores is no count"));
  PlainJson json = Written();
  json["environment"].erase("kernel");
  EXPECT_THAT(ErrorOf(json.dump()), HasSubstr("environment.kernel is missing"));
}

// Any one value spoiled by any other: an error or a report, never worse, and what was read can be
// shown.
TEST(ReportJson, SurvivesAnySpoiledValue) {
  const Report small{
      .sections = {
          {.benchmark = "b",
           .series = {{.key = "v", .samples = {3}}},
           .curves = {{.key = "c", .points = {{1, 2}}}},
           .figures = {{.key = "f", .value = {"v"}, .against = Number{"v"}, .target = Target{}}}}}};
  const auto flat = PlainJson::parse(ToJsonText(small)).flatten();
  const std::vector<PlainJson> spoilers = {nullptr,
                                           true,
                                           "x",
                                           -1,
                                           1e300,
                                           18446744073709551615u,
                                           PlainJson::object(),
                                           PlainJson::array({1, 2, 3})};
  for (const auto& [pointer, value] : flat.items()) {
    for (const auto& spoiler : spoilers) {
      auto json = PlainJson::parse(ToJsonText(small));
      json[PlainJson::json_pointer(pointer)] = spoiler;
      const auto read = FromJsonText(json.dump());
      if (read) EXPECT_NE(RenderTable(*read), "") << pointer << " " << spoiler;
    }
  }
}

// A text that was cut off is never taken for a report.
TEST(ReportJson, RefusesEveryTruncation) {
  const std::string text = ToJsonText({.sections = {{.benchmark = "b"}}});
  for (std::size_t size = 0; size + 1 < text.size(); ++size) {
    if (text.substr(size) == "\n") continue;
    EXPECT_NE(ErrorOf(text.substr(0, size)), "") << size;
  }
}

}  // namespace
}  // namespace hatchery::bench

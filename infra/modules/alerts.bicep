// What somebody is told of about the platform, and of what the app itself says with alert=. docs/runbooks.md: what to do then.
param location string
param tags object
param email string
param workspaceId string
param cosmosId string
param vaultId string
param hostStorageId string
param patientStorageId string
param monthlyBudget int
param budgetStart string

resource people 'Microsoft.Insights/actionGroups@2023-01-01' = {
  name: 'ag-deployr'
  location: 'global'
  tags: tags
  properties: {
    groupShortName: 'deployr'
    enabled: true
    emailReceivers: [{ name: 'on-call', emailAddress: email, useCommonAlertSchema: true }]
  }
}

// Each: how bad (1 wakes somebody), how often it is looked at, over which time, and from how many rows on it is told.
var sayings = [
  {
    name: 'app-says-alert'
    severity: 1
    every: 'PT5M'
    over: 'PT5M'
    above: 0
    query: 'AppTraces | where Message has "alert="'
  }
  {
    name: 'requests-fail'
    severity: 1
    every: 'PT5M'
    over: 'PT15M'
    above: 0
    query: 'AppTraces | where Message startswith "infer:" | extend status = toint(extract(@"status=(\\d+)", 1, Message)) | summarize asked = count(), failed = countif(status >= 500) | where asked >= 10 and failed * 20 > asked'
  }
  {
    name: 'requests-slow'
    severity: 2
    every: 'PT5M'
    over: 'PT15M'
    above: 0
    query: 'AppTraces | where Message startswith "infer:" | extend ms = toreal(extract(@"ms=([0-9.]+)", 1, Message)) | summarize asked = count(), slow = percentile(ms, 95) | where asked >= 10 and slow > 5000'
  }
  {
    name: 'relay-stands-still'
    severity: 1
    every: 'PT15M'
    over: 'PT15M'
    above: 0
    query: 'AppTraces | where Message startswith "relay:" | summarize runs = count() | where runs == 0'
  }
  {
    name: 'nobody-asks'
    severity: 3
    every: 'PT1H'
    over: 'PT6H'
    above: 0
    query: 'AppTraces | where Message startswith "infer:" or Message startswith "cds:" or Message startswith "bpa:" | summarize asked = count() | where asked == 0'
  }
]

resource said 'Microsoft.Insights/scheduledQueryRules@2023-12-01' = [
  for each in sayings: {
    name: each.name
    location: location
    tags: tags
    kind: 'LogAlert'
    properties: {
      severity: each.severity
      enabled: true
      evaluationFrequency: each.every
      windowSize: each.over
      scopes: [workspaceId]
      // Before the first line is logged the table is not there.
      skipQueryValidation: true
      autoMitigate: each.severity > 1
      criteria: {
        allOf: [
          {
            query: each.query
            timeAggregation: 'Count'
            operator: 'GreaterThan'
            threshold: each.above
            failingPeriods: { numberOfEvaluationPeriods: 1, minFailingPeriodsToAlert: 1 }
          }
        ]
      }
      actions: { actionGroups: [people.id] }
    }
  }
]

resource throttled 'Microsoft.Insights/metricAlerts@2018-03-01' = {
  name: 'store-throttles'
  location: 'global'
  tags: tags
  properties: {
    severity: 2
    enabled: true
    scopes: [cosmosId]
    evaluationFrequency: 'PT5M'
    windowSize: 'PT15M'
    criteria: {
      'odata.type': 'Microsoft.Azure.Monitor.SingleResourceMultipleMetricCriteria'
      allOf: [
        {
          criterionType: 'StaticThresholdCriterion'
          name: 'too-many-requests'
          metricNamespace: 'Microsoft.DocumentDB/databaseAccounts'
          metricName: 'TotalRequests'
          dimensions: [{ name: 'StatusCode', operator: 'Include', values: ['429'] }]
          timeAggregation: 'Count'
          operator: 'GreaterThan'
          threshold: 100
        }
      ]
    }
    actions: [{ actionGroupId: people.id }]
  }
}

var watched = [
  { name: 'store', id: cosmosId, space: 'Microsoft.DocumentDB/databaseAccounts', metric: 'ServiceAvailability', over: 'PT1H' }
  { name: 'vault', id: vaultId, space: 'Microsoft.KeyVault/vaults', metric: 'Availability', over: 'PT15M' }
  { name: 'host-storage', id: hostStorageId, space: 'Microsoft.Storage/storageAccounts', metric: 'Availability', over: 'PT15M' }
  { name: 'patient-storage', id: patientStorageId, space: 'Microsoft.Storage/storageAccounts', metric: 'Availability', over: 'PT15M' }
]

resource away 'Microsoft.Insights/metricAlerts@2018-03-01' = [
  for each in watched: {
    name: '${each.name}-away'
    location: 'global'
    tags: tags
    properties: {
      severity: 1
      enabled: true
      scopes: [each.id]
      evaluationFrequency: 'PT5M'
      windowSize: each.over
      criteria: {
        'odata.type': 'Microsoft.Azure.Monitor.SingleResourceMultipleMetricCriteria'
        allOf: [
          {
            criterionType: 'StaticThresholdCriterion'
            name: 'availability'
            metricNamespace: each.space
            metricName: each.metric
            timeAggregation: 'Average'
            operator: 'LessThan'
            threshold: 99
          }
        ]
      }
      actions: [{ actionGroupId: people.id }]
    }
  }
]

resource budget 'Microsoft.Consumption/budgets@2023-11-01' = {
  name: 'deployr'
  properties: {
    category: 'Cost'
    amount: monthlyBudget
    timeGrain: 'Monthly'
    timePeriod: { startDate: budgetStart }
    notifications: {
      mostOfIt: {
        enabled: true
        operator: 'GreaterThan'
        threshold: 80
        thresholdType: 'Actual'
        contactEmails: [email]
      }
      more: {
        enabled: true
        operator: 'GreaterThan'
        threshold: 100
        thresholdType: 'Forecasted'
        contactEmails: [email]
      }
    }
  }
}
